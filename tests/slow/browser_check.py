"""The notebooks in JupyterLab, in a real browser, as a person uses them: `make slow-browser`. Not part of `make test`.

Needs Chromium on the machine. Screenshots of every figure and of the notebook as it ended land in build/browser/.
"""

import base64
import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from PIL import Image, ImageStat
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICK = yaml.safe_load((ROOT / "tools" / "quick.yaml").read_text(encoding="utf-8"))
SHOTS = ROOT / "build" / "browser"
SECONDS = 300  # for a notebook
SETTINGS = {  # all cells in the page, not only those in sight; and no question about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
each_notebook = pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over quick copies of the notebooks without outputs: its folder and its address."""
    folder, settings = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("settings")
    for source in NOTEBOOKS:
        papermill.execute_notebook(source, folder / source.name, QUICK, prepare_only=True, progress_bar=False)
        book = nbformat.read(folder / source.name, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(book, folder / source.name)
    for name, content in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += ["--ServerApp.token=", "--ServerApp.password=", f"--ServerApp.root_dir={folder}"]
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with (SHOTS / "jupyterlab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(60):
            try:
                urllib.request.urlopen(f"{url}/api", timeout=5).read()
                break
            except OSError:
                time.sleep(1)
        yield folder, url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport=dict(width=1400, height=1000))
    yield page
    page.close()


def wait_for_kernel(page: Page, status: str) -> None:
    page.get_by_text(f"(ipykernel) | {status}").wait_for(timeout=60_000)


def choose(page: Page, menu: str, item: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=item, exact=True).click()


def bars(page: Page) -> list[str]:
    """The progress bars in sight: epoch and per cent."""
    return re.findall(r"epoch \d+: +\d+%", " ".join(page.locator(".jp-OutputArea-output pre").all_inner_texts()))


def wait_until_idle(page: Page) -> list[str]:
    """Returns every state of the progress bars that was seen on the way."""
    end, seen = time.monotonic() + SECONDS, []
    while time.monotonic() < end:
        seen += [bar for bar in bars(page) if bar not in seen]
        if page.get_by_text("(ipykernel) | Idle").count() and not page.get_by_text("[*]:").count():
            return seen
        time.sleep(0.3)
    raise AssertionError(f"still busy after {SECONDS} s; bars: {seen[-3:]}")


def open_notebook(page: Page, lab, source: Path) -> None:
    page.goto(f"{lab[1]}/lab/tree/{source.name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    wait_for_kernel(page, "Idle")


def run_all(page: Page) -> None:
    choose(page, "Run", "Run All Cells")
    wait_for_kernel(page, "Busy")


def saved(page: Page, lab, source: Path) -> nbformat.NotebookNode:
    """The notebook as it stands in the page."""
    file = lab[0] / source.name
    before = file.stat().st_mtime_ns
    page.locator("[data-command='docmanager:save']").first.click()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.1)
        with contextlib.suppress(nbformat.reader.NotJSONError):  # half written
            if file.stat().st_mtime_ns != before:
                return nbformat.read(file, as_version=4)
    raise AssertionError(f"{source.name} was not saved within 30 s")


def check_whole(book: nbformat.NotebookNode) -> None:
    """Every cell was executed, without an error, and every figure shows something."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.execution_count is None] == []
    outputs = [output for cell in code for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 5
    for figure in figures:
        image = Image.open(io.BytesIO(base64.b64decode(figure)))
        assert min(image.size) > 100 and max(ImageStat.Stat(image.convert("L")).stddev) > 5


def check_curves(book: nbformat.NotebookNode) -> None:
    """Each training has left one curve, as it was after the last epoch, and no lines."""
    (train,) = (cell for cell in book.cells if cell.get("id") == "train")
    titles = [output.metadata["image/png"]["alt"] for output in train.outputs if "image/png" in output.get("data", {})]
    assert len(titles) >= 2 and all(title.startswith("epoch 2 of 2, done in ") for title in titles), titles
    assert "train loss" not in "".join(output.get("text", "") for output in train.outputs)


@each_notebook
def test_run_all(page, lab, source):
    open_notebook(page, lab, source)
    run_all(page)
    seen = wait_until_idle(page)
    assert len(seen) > 5, f"the progress bar hardly moved: {seen}"
    assert bars(page) == []  # and it is gone in the end
    book = saved(page, lab, source)
    check_whole(book)
    check_curves(book)
    for number, figure in enumerate(page.locator(".jp-OutputArea-output img").all()):
        figure.scroll_into_view_if_needed()
        figure.screenshot(path=SHOTS / f"{source.stem}-{number}.png")
    page.screenshot(path=SHOTS / f"{source.stem}.png")


@each_notebook
def test_interrupt(page, lab, source):
    open_notebook(page, lab, source)
    choose(page, "Kernel", "Restart Kernel and Clear Outputs of All Cells…")
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    wait_for_kernel(page, "Idle")
    run_all(page)
    end = time.monotonic() + SECONDS
    while not any(bar.startswith("epoch 2") for bar in bars(page)):
        assert time.monotonic() < end
        time.sleep(0.1)
    page.locator("[data-command='notebook:interrupt-kernel']").click()
    message = page.get_by_text("interrupted in epoch 2; the history holds the 1 finished").last
    message.wait_for(timeout=30_000)
    wait_until_idle(page)  # while more is printed, the element that holds the message is made anew
    message.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / f"{source.stem}-interrupted.png")
    check_whole(saved(page, lab, source))  # the cells after it made do with what there was
    run_all(page)
    wait_until_idle(page)
    assert page.get_by_text("interrupted in epoch").count() == 0
    check_whole(saved(page, lab, source))
