"""The download against servers on this machine: which host is asked, what is kept, what is said."""

import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from course_utils.download import fetch_cifar10

MEMBER = "cifar-10-batches-py/data_batch_1"


def pack(content: bytes) -> bytes:
    buffer, member = io.BytesIO(), tarfile.TarInfo(MEMBER)
    member.size = len(content)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = pack(b"small pictures")
KNOWN_HASH = "md5:" + hashlib.md5(ARCHIVE).hexdigest()
ANSWERS = {  # what a host may send: a status, the bytes, and how many more it promises
    "good": (200, ARCHIVE, 0),
    "missing": (404, ARCHIVE, 0),
    "another archive": (200, pack(b"something else"), 0),
    "web page": (200, b"<html>please log in</html>", 0),
    "cut short": (200, ARCHIVE[:50], len(ARCHIVE) - 50),
}
FAILURES = ["refuses", *list(ANSWERS)[1:]]


@pytest.fixture
def host(monkeypatch):
    """Start a server that gives one of `ANSWERS`, or refuses; returns a URL and the growing list of requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(name: str) -> tuple[str, list[str]]:
        if name == "refuses":
            with socket.create_server(("127.0.0.1", 0)) as closed_again:
                return f"http://127.0.0.1:{closed_again.getsockname()[1]}/cifar.tar.gz", []
        status, body, more = ANSWERS[name]
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + more))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/cifar.tar.gz", requests

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("first", ["good", *FAILURES])
def test_first_good_host_is_used(host, tmp_path, first):
    (first_url, _), (second_url, asked) = host(first), host("good")
    assert fetch_cifar10(tmp_path, [first_url, second_url], KNOWN_HASH) == tmp_path
    assert (tmp_path / MEMBER).read_bytes() == b"small pictures"
    assert len(asked) == (first != "good")


def test_all_hosts_fail(host, tmp_path):
    urls = [host(failure)[0] for failure in FAILURES]
    with pytest.raises(ConnectionError) as caught:
        fetch_cifar10(tmp_path, urls, KNOWN_HASH)
    words = [*urls, "404", "1. ", "dataset='shapes'", "2. ", f"into {tmp_path}", "COURSE_DATA", "3. ", "later"]
    assert [word for word in words if word not in str(caught.value)] == []
    assert list(tmp_path.iterdir()) == []  # nothing wrong was kept


def test_downloaded_once(host, tmp_path):
    (first_url, asked_first), (second_url, asked_second) = host("missing"), host("good")
    for _ in range(3):  # unpacked again from the archive that was kept, whichever host sent it
        fetch_cifar10(tmp_path, [first_url, second_url], KNOWN_HASH)
        (tmp_path / MEMBER).unlink()
    assert len(asked_first) == len(asked_second) == 1
