"""Links inside the repository lead somewhere; the check of those that lead elsewhere works."""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from links import ROOT, links, problem_with, texts

TEXTS = texts()


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", TEXTS)
def test_relative_links_lead_somewhere(name):
    for link in links(TEXTS[name]):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name} links to {link}: no such heading"


def test_there_are_links():
    assert "data/README.md" in links(TEXTS["README.md"])
    assert any(link.startswith("https://arxiv.org/abs/") for link in links(TEXTS["notebooks/S8_normalization.ipynb"]))


def test_links_in_markdown():
    assert links("see [a](b.md) and [c d](https://e.org/f#g), <https://h.org>, not (i)") == [
        *("b.md", "https://e.org/f#g", "https://h.org")
    ]


def test_address_that_does_not_answer():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/there" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert problem_with(f"{url}/there") is None
        assert problem_with(f"{url}/gone") == "status 404"
        server.shutdown()
    assert problem_with(url) == "ConnectionError"
