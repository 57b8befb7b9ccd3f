"""Versions of the packages, and the description of a session."""

import builtins
from importlib import metadata
from types import SimpleNamespace

import matplotlib
import nbformat
import pytest
import torch
from execution import execute
from nbformat.v4 import new_code_cell, new_notebook

from course_utils import environment
from course_utils.environment import check_versions, describe_session, show_figures


def test_versions_of_this_machine_are_allowed():
    check_versions()


@pytest.mark.parametrize("checkout", [True, False])
@pytest.mark.fault(
    "torch outside the allowed range", "faked version number", "what was found, what is expected, the remedy"
)
def test_versions_outside_the_range(checkout, monkeypatch, tmp_path):
    version = metadata.version
    if not checkout:  # installed without the repository around it
        monkeypatch.setattr(environment, "repository_root", lambda: None)
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.11", "tqdm>=4.67", 'ruff>=0.9; extra == "dev"'])
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.9+cu130" if name == "torch" else version(name))
    with pytest.raises(ImportError) as caught:
        check_versions()
    assert str(caught.value).startswith(
        "torch is 2.10.9+cu130, expected >=2.11. Install them with: pip install --upgrade "
    )
    if not checkout:  # as a shell reads it, to which > means another file
        assert str(caught.value).endswith("pip install --upgrade 'torch>=2.11' 'tqdm>=4.67'")

    monkeypatch.setattr(metadata, "version", lambda name: "99.0.dev1" if name == "torch" else version(name))
    check_versions()  # a nightly build

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lambda name: missing(name) if name == "tqdm" else version(name))
    with pytest.raises(ImportError, match=r"^tqdm is missing, expected >=4\.67\. "):
        check_versions()
    monkeypatch.setattr(environment, "repository_root", lambda: None)
    monkeypatch.setattr(metadata, "requires", missing)
    check_versions()  # copied out of the package, its lists are not there


@pytest.mark.parametrize(("colab", "device"), [(False, "cpu"), (True, "cpu"), (True, "meta")])
def test_session_is_described(colab, device, monkeypatch, capsys):
    monkeypatch.setitem(environment.sys.modules, "google.colab", SimpleNamespace()) if colab else None
    monkeypatch.setattr(environment, "hardware_name", lambda device: f"a {device.type}")
    monkeypatch.setattr(environment, "pick_precision", lambda name, device: SimpleNamespace(name="fp32", reason="why"))
    describe_session(torch.device(device))
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__} on a {device}" in printed and "fp32: why\n" in printed
    assert ("Change runtime type" in printed) == (colab and device == "cpu")


def test_figures_of_a_notebook_are_kept_whatever_the_environment_says(tmp_path):
    returned = "from matplotlib import pyplot as plt\nfigure, axes = plt.subplots()\nplt.close(figure)\nfigure"
    cells = ["from course_utils.environment import show_figures\nshow_figures()", returned, "plt.plot([1, 2]);"]
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), tmp_path / "in.ipynb")
    assert execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {}, 60, 60, variables={"MPLBACKEND": "Agg"}) is None
    _, *outputs = (cell.outputs for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells)
    assert ["image/png" in output["data"] for (output,) in outputs] == [True, True]


def test_figures_outside_a_notebook_stay_as_they_are(monkeypatch):
    before = matplotlib.get_backend()
    show_figures()
    monkeypatch.setattr(builtins, "get_ipython", lambda: SimpleNamespace(), raising=False)  # IPython in a terminal
    show_figures()
    assert matplotlib.get_backend() == before
