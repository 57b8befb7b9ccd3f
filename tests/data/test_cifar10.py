"""The download against servers on this machine that fail in the ways hosts do: what is kept, what is said, how soon."""

import hashlib
import io
import multiprocessing
import os
import random
import signal
import socket
import tarfile
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from course_utils.data import cifar10 as download
from course_utils.data.cifar10 import BATCHES, MIRROR, fetch_cifar10

PICTURES = random.Random(0).randbytes(600_000)  # cannot be compressed: the archive is as large


def pack(content: bytes = PICTURES, name: str = f"{BATCHES}/data_batch_1", **kind) -> bytes:
    buffer, member = io.BytesIO(), tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in kind.items():
        setattr(member, field, value)
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = pack()
PATIENCE = 0.5
WRONG = bytes([*ARCHIVE[:-1], ARCHIVE[-1] ^ 1])
PAGE = b"<html>please log in</html>"


def fetch(root: Path, *hosts: str, archive: bytes = ARCHIVE) -> Path:
    return fetch_cifar10(root, hosts, len(archive), hashlib.md5(archive).hexdigest(), PATIENCE)


class Host:
    """A server that answers as `behave(handler, number of the request)` says, and keeps the ranges asked for."""

    def __init__(self, behave):
        self.ranges = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler):
                self.ranges.append(handler.headers.get("Range"))
                with suppress(BrokenPipeError, ConnectionResetError):  # the other side has seen enough
                    behave(handler, len(self.ranges))

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.server.server_port}/cifar-10-python.tar.gz"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def send(handler, request=1, body=ARCHIVE, *, status=200, upto=1.0, trickle=False, ranges=True):
    """Send `body`, or what the request asks for of it, but stop, or slow down to a trickle, at the share `upto`."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1]) if ranges else 0
    if start >= len(body):
        handler.send_error(416)
        return
    handler.send_response(206 if start else status)
    handler.send_header("Content-Length", str(len(body) - start))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    handler.end_headers()
    end = max(start, int(upto * len(body)))
    handler.wfile.write(body[start:end])
    while trickle and end < len(body):
        handler.wfile.write(body[end : end + 10])
        end += 10
        time.sleep(0.02)


def stall(handler, request):
    send(handler, upto=0.3)
    time.sleep(60)


def cut_until(last: int, **options):
    """The connection breaks at 60 %, then at 70 %, and so on, up to the request number `last`."""
    return lambda handler, request: send(handler, upto=1 if request >= last else 0.5 + request / 10, **options)


def busy_until(last: int):
    return lambda handler, request: send(handler) if request >= last else handler.send_error(503)


ENDS_WELL = {  # how a host behaves, and the ranges it is asked for if it is the only one
    "good": (send, [None]),
    "cut at 60 %, then at 70 %": (cut_until(3), [None, 0.6, 0.7]),
    "cut, and knows no ranges": (cut_until(3, ranges=False), [None, 0.6, 0.7]),
    "503, then well": (busy_until(2), [None, None]),
}
FAILS = {  # and what is said of it
    "404": (lambda handler, request: handler.send_error(404), "404"),
    "always 503": (busy_until(99), "503"),
    "stall at 30 %": (stall, "sent nothing for"),
    "a trickle": (partial(send, upto=0.1, trickle=True), "kB/s for"),
    "wrong bytes of the right length": (partial(send, body=WRONG), "something else"),
    "a web page": (partial(send, body=PAGE, ranges=False), f"offers {len(PAGE)} bytes, expected {len(ARCHIVE):,}"),
    "a shorter archive": (partial(send, body=ARCHIVE[:-1]), f"offers {len(ARCHIVE) - 1:,} bytes"),
    "cut at once": (partial(send, upto=0), "broke off after 0 of"),
}


@pytest.fixture
def host(monkeypatch):
    """Start a server with one of these behaviours."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(MIRROR, raising=False)
    hosts = []

    def start(behave) -> Host:
        hosts.append(Host(behave))
        return hosts[-1]

    yield start
    for started in hosts:
        started.server.shutdown()
        started.server.server_close()


@pytest.fixture
def refusing() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed_again:
        return f"http://127.0.0.1:{closed_again.getsockname()[1]}/cifar.tar.gz"


def holds_the_pictures(root: Path) -> bool:
    """And nothing else but the lock."""
    names = sorted(path.name for path in root.iterdir())
    assert (root / BATCHES / "data_batch_1").read_bytes() == PICTURES
    return names == [BATCHES, "cifar-10.lock"]


fault = pytest.mark.fault
SERVER = "local HTTP server"


def marked(names, holds: str) -> list:
    return [pytest.param(name, marks=fault(name, SERVER, holds)) for name in names]


@pytest.mark.parametrize(
    "name", ["good", *marked(list(ENDS_WELL)[1:], "fetched whole, by ranges where the host knows them; once")]
)
def test_host_that_ends_well(host, tmp_path, name):
    behave, ranges = ENDS_WELL[name]
    only = host(behave)
    assert fetch(tmp_path / "new", only.url) == tmp_path / "new"
    assert holds_the_pictures(tmp_path / "new")
    assert only.ranges == [share and f"bytes={int(share * len(ARCHIVE))}-" for share in ranges]
    fetch(tmp_path / "new", only.url)
    assert len(only.ranges) == len(ranges)  # what is there is not fetched again


@pytest.mark.parametrize("name", marked(FAILS, "the error says so within seconds; the next host delivers"))
def test_host_that_fails_is_left_for_the_next(host, tmp_path, name):
    behave, said = FAILS[name]
    bad, start = host(behave), time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        fetch(tmp_path, bad.url)
    assert f"  {bad.url}: " in str(caught.value) and said in str(caught.value)
    assert time.monotonic() - start < 10
    assert not (tmp_path / BATCHES).exists()
    good = host(send)
    fetch(tmp_path, bad.url, good.url)
    assert holds_the_pictures(tmp_path)


@pytest.mark.parametrize("name", ["stall at 30 %", "a trickle"])
def test_next_host_goes_on_where_the_one_before_stopped(host, tmp_path, name):
    between = [host(FAILS[name][0]) for name in ("a web page", "a shorter archive", "404")]
    slow, good = host(FAILS[name][0]), host(send)
    fetch(tmp_path, slow.url, *(bad.url for bad in between), good.url)
    assert holds_the_pictures(tmp_path)
    (asked,) = good.ranges
    assert int(asked[6:-1]) >= 0.1 * len(ARCHIVE)


@fault("stall at 30 %, then a restart", SERVER, "only the rest is fetched")
def test_restart_goes_on_where_it_stopped(host, tmp_path):
    with pytest.raises(ConnectionError):
        fetch(tmp_path, host(FAILS["stall at 30 %"][0]).url)
    good = host(send)
    fetch(tmp_path, good.url)
    assert holds_the_pictures(tmp_path) and good.ranges == [f"bytes={int(0.3 * len(ARCHIVE))}-"]


@fault("stopped between download and unpacking", "whole archive left behind", "unpacked without a request")
def test_whole_file_that_was_not_unpacked_yet(host, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(ARCHIVE)
    other = host(send)
    fetch(tmp_path, other.url)
    assert holds_the_pictures(tmp_path) and other.ranges == []


def test_archive_that_was_put_there_by_hand(host, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(ARCHIVE)
    other = host(send)
    fetch(tmp_path, other.url)
    assert other.ranges == [] and (tmp_path / BATCHES / "data_batch_1").read_bytes() == PICTURES
    assert (tmp_path / "cifar-10-python.tar.gz").read_bytes() == ARCHIVE  # it is not ours to delete


def test_half_an_archive_that_was_put_there_by_hand(host, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(ARCHIVE[:1000])
    with pytest.raises(
        ConnectionError, match=rf"python.tar.gz: is not the whole archive, which has {len(ARCHIVE):,} b"
    ):
        fetch(tmp_path, host(FAILS["404"][0]).url)
    fetch(tmp_path, host(send).url)
    assert (tmp_path / BATCHES / "data_batch_1").read_bytes() == PICTURES
    assert (tmp_path / "cifar-10-python.tar.gz").stat().st_size == 1000


def test_wrong_beginning_is_not_kept(host, tmp_path):
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(b"other")
    fetch(tmp_path, host(send).url, host(send).url)
    assert holds_the_pictures(tmp_path)


def test_mirror_comes_first(host, tmp_path, monkeypatch):
    mirror, other = host(send), host(send)
    monkeypatch.setenv(MIRROR, mirror.url)
    fetch(tmp_path, other.url)
    assert (len(mirror.ranges), len(other.ranges)) == (1, 0)


@fault("refused connection, DNS failure", "closed port; reserved name", "an error within seconds names three ways on")
def test_offline(tmp_path, refusing, monkeypatch):
    urls, start = [refusing, "http://nowhere.invalid/cifar-10-python.tar.gz"], time.monotonic()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,nowhere.invalid")
    monkeypatch.delenv(MIRROR, raising=False)
    with pytest.raises(ConnectionError) as caught:
        fetch(tmp_path, *urls)
    assert time.monotonic() - start < 10
    words = [*urls, "1. ", "dataset='shapes'", "2. ", f"into {tmp_path}", "COURSE_DATA", "3. ", "later", MIRROR]
    assert [word for word in words if word not in str(caught.value)] == []


EVIL = {
    "outside": pack(name="../evil"),
    "absolute": pack(name="/tmp/evil"),
    "symbolic link": pack(b"", name=f"{BATCHES}/evil", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": pack(b"", name=f"{BATCHES}/evil", type=tarfile.LNKTYPE, linkname=f"{BATCHES}/data_batch_1"),
    "device": pack(b"", name=f"{BATCHES}/evil", type=tarfile.CHRTYPE),
    "no archive": b"no archive",
    "another folder": pack(name="other/data_batch_1"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=fault(f"archive: {name}", "archive with the right checksum", "nothing lands outside"))
        for name in EVIL
    ],
)
def test_archive_that_would_do_harm(host, tmp_path, name):
    # Even with the right checksum nothing but files and folders inside the target is unpacked.
    root = tmp_path / "a" / "b"
    # Of an absolute path some versions of tarfile drop the leading slash, which does no harm either.
    with suppress(ValueError) if name == "absolute" else pytest.raises(ValueError, match="archive"):
        fetch(root, host(partial(send, body=EVIL[name])).url, archive=EVIL[name])
    assert name == "absolute" or not (root / BATCHES).exists()
    assert not list(tmp_path.glob("**/unpacking-*")) and not list(tmp_path.glob("evil")) + list(tmp_path.glob("a/evil"))
    assert not Path("/tmp/evil").exists()


@fault("two downloads at once", "two threads, slow local server", "fetched once, both find it")
def test_two_at_once_download_once(host, tmp_path):
    slow = host(lambda handler, request: (time.sleep(0.2), send(handler)))
    threads = [threading.Thread(target=fetch, args=(tmp_path, slow.url)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert holds_the_pictures(tmp_path) and slow.ranges == [None]


@fault("killed while unpacking", "SIGKILL to a process", "nothing half there; the next call ends well")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_while_unpacking(host, tmp_path):
    def unpack_slowly(archive, folder, **kwargs):
        (Path(folder) / BATCHES).mkdir()
        (Path(folder) / BATCHES / "data_batch_1").write_bytes(b"half of i")
        time.sleep(60)

    def child():
        tarfile.TarFile.extractall = unpack_slowly
        fetch(tmp_path, good.url)

    good = host(send)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    while not list(tmp_path.glob("unpacking-*/*/*")):
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert not (tmp_path / BATCHES).exists()
    fetch(tmp_path, good.url)  # the lock is gone with its holder
    assert holds_the_pictures(tmp_path)


@fault(
    "disk full while downloading", "file that refuses to be written", "an error that names the folder, no other host"
)
def test_full_disk_is_no_fault_of_the_host(host, tmp_path, monkeypatch):
    good, other = host(send), host(send)

    class Full(io.BytesIO):
        def write(self, piece):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.Path, "open", lambda *args: Full())
        with pytest.raises(OSError, match=rf"cannot be kept in {tmp_path} \(.*No space left.*COURSE_DATA") as caught:
            fetch(tmp_path, good.url, other.url)
    assert not isinstance(caught.value, ConnectionError | requests.RequestException) and other.ranges == []
