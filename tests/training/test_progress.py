"""What `fit` shows while it runs: in a terminal, in a notebook that a person steps through, and where nobody looks."""

import base64
import builtins
import io
import sys
from types import SimpleNamespace

import pytest
import torch
from jupyter_client.manager import start_new_kernel
from torch import nn

from course_utils.training import History, Recipe, fit, progress
from course_utils.training.history import Metrics
from course_utils.training.progress import accuracy_curve, somebody_watches

BATCHES = [(torch.randn(8, 3, 8, 8), torch.arange(8))] * 3
IN_A_KERNEL = """
import torch
from torch import nn
from course_utils.training import Recipe, fit
batches = [(torch.randn(8, 3, 8, 8), torch.arange(8))] * 3
fit(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), batches, batches, Recipe(epochs=3));
"""


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("verbose", [True, False])
def test_what_is_printed(capsys, monkeypatch, watched, verbose):
    monkeypatch.setattr(progress, "somebody_watches", lambda: watched)
    history = fit(net(), BATCHES, BATCHES, Recipe(epochs=2), verbose=verbose)
    out, err = capsys.readouterr()
    assert err == ""  # JupyterLab would colour it
    assert ("epoch 1:" in out and "/3 [" in out) if watched and verbose else "\r" not in out
    lines = [text.rpartition("\r")[2] for text in out.split("\n")[:-1]]  # as it stands when the bars are gone
    for line, m in zip(lines, history.metrics if verbose else [], strict=True):
        losses, accuracies = (m.train_loss, m.val_loss), (m.train_accuracy, m.val_accuracy)
        figures = [f"epoch   {m.epoch} ", *(f"{x:.3f}" for x in losses), *(f"{x:.2%}" for x in accuracies)]
        assert [figure for figure in figures if figure not in line] == []


def test_in_a_notebook():
    """One picture that changes in place while a person watches, and lines of text under papermill and nbval."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        shown = {True: [], False: []}
        for watched, messages in shown.items():
            reply = client.execute_interactive(
                IN_A_KERNEL, allow_stdin=watched, output_hook=messages.append, stdin_hook=print, timeout=120
            )
            assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = {watched: [message["msg_type"] for message in messages] for watched, messages in shown.items()}
    text = {
        watched: "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
        for watched, messages in shown.items()
    }
    assert [kind for kind in kinds[True] if "display" in kind] == ["display_data", *["update_display_data"] * 2]
    pictures = [m["content"] for m in shown[True] if "display" in m["msg_type"]]
    assert len({picture["transient"]["display_id"] for picture in pictures}) == 1
    assert all(base64.b64decode(p["data"]["image/png"]).startswith(b"\x89PNG") for p in pictures)
    assert pictures[0]["metadata"]["image/png"]["alt"].startswith("epoch 1 of 3, about ")
    assert "epoch 1: " in text[True] and "train loss" not in text[True]  # the bar, and no lines
    assert not [kind for kind in kinds[False] if "display" in kind]
    assert text[False].count("train loss") == 3 and "\r" not in text[False]


def history(*accuracies: tuple[float, float | None], seconds: tuple[float, ...] = (10.0, 10.0), **recipe) -> History:
    rows = enumerate(zip(accuracies, seconds, strict=False), start=1)
    metrics = [Metrics(i, 1.0, train, None if val is None else 1.0, val, 0.1, took) for i, ((train, val), took) in rows]
    return History(Recipe(**{"epochs": 6} | recipe), metrics)


def test_the_curve_shows_every_epoch_and_the_time_that_is_left():
    axes = accuracy_curve(history((0.25, 0.5), (0.5, 0.625))).axes[0]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"train, 50.0 %": [[1, 25], [2, 50]], "validation, 62.5 %": [[1, 50], [2, 62.5]]}
    assert axes.get_title() == "epoch 2 of 6, about 40 s left" and axes.get_xlim() == (0.5, 6.5)


@pytest.mark.parametrize(
    ("recipe", "seconds", "title"),
    [
        (dict(epochs=2), (10, 10), "epoch 2 of 2, done in 20 s"),
        (dict(epochs=4), (80, 100), "epoch 2 of 4, about 3 min left"),
        (dict(epochs=4, small_epochs=1), (10, 30), "epoch 2 of 4, about 60 s left"),
        (dict(epochs=4, small_epochs=2), (10, 10), "epoch 2 of 4, at least 20 s left"),
        (dict(epochs=2, small_epochs=2), (10, 10), "epoch 2 of 2, done in 20 s"),
    ],
)
def test_title_of_the_curve(recipe, seconds, title):
    assert accuracy_curve(history((0.1, 0.1), (0.2, 0.2), seconds=seconds, **recipe)).axes[0].get_title() == title


def test_a_curve_without_validation():
    assert len(accuracy_curve(history((0.25, None))).axes[0].lines) == 1


@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("where", ["watched notebook", "headless notebook", "other kernel", "IPython", "Python"])
def test_somebody_watches(monkeypatch, where, tty):
    kernels = {"watched notebook": dict(_allow_stdin=True), "headless notebook": dict(_allow_stdin=False)}
    shell = (
        SimpleNamespace() if where == "IPython" else SimpleNamespace(kernel=SimpleNamespace(**kernels.get(where, {})))
    )
    if where != "Python":
        monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    assert somebody_watches() is (tty if "Python" in where else where == "watched notebook")
