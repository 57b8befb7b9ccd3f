"""Devices, precisions, the data folder and seeds; the hardware is faked."""

import importlib.util
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from course_utils import runtime
from course_utils.layers import make_norm
from course_utils.runtime import (
    check_versions,
    checkpoint_file,
    choose,
    data_root,
    describe_session,
    memory_format_of,
    pick_device,
    pick_precision,
    seed_everything,
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose("c", ("a", "b"), "letter"), "unknown letter 'c', expected one of a, b"),
        (lambda: pick_precision("fp8"), "unknown precision 'fp8', expected one of auto, fp32, bf16, fp16"),
    ],
)
def test_errors_list_the_choices(call, message):
    assert choose("b", ("a", "b"), "letter") == "b"
    with pytest.raises(ValueError, match=f"{message}$"):
        call()


@pytest.mark.parametrize(
    ("found", "names"), [("cuda", "auto, cpu, cuda"), ("mps", "auto, cpu, mps"), ("cpu", "auto, cpu")]
)
def test_pick_device(found, names, monkeypatch):
    available = None if found == "cpu" else torch.device(found)
    built_for = torch.device("cuda")  # what torch names without the check
    monkeypatch.setattr(
        torch.accelerator,
        "current_accelerator",
        lambda check_available=False: available if check_available else built_for,
    )
    assert pick_device() == pick_device(found) == torch.device(found)
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=f"unknown device 'tpu', expected one of {names}$"):
        pick_device("tpu")


@pytest.mark.parametrize(
    ("norm", "device", "expected"),
    [
        ("batch", "cpu", torch.channels_last),
        ("layer", "cpu", torch.channels_last),  # GroupNorm as well, but of one group
        ("group", "cpu", torch.contiguous_format),
        ("group", "meta", torch.channels_last),
    ],
)
def test_only_groups_of_channels_on_a_cpu_want_contiguous_images(norm, device, expected):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Sequential(make_norm(8, norm))).to(device)
    assert memory_format_of(model) == expected


@pytest.mark.parametrize(
    ("name", "device", "hardware", "expected"),
    [
        ("auto", "cuda", (7, 5), "fp16"),  # T4
        ("auto", "cuda", (8, 0), "bf16"),  # A100
        ("auto", "cpu", {"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ("auto", "cpu", {"amx_bf16": True}, "bf16"),
        ("auto", "cpu", {"avx2": True, "avx512_bf16": False}, "fp32"),
        ("auto", "mps", None, "fp32"),
        ("fp16", "cuda", (8, 0), "fp16"),
        ("bf16", "cpu", {}, "bf16"),
    ],
)
def test_auto_precision_follows_the_hardware(name, device, hardware, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: hardware)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: hardware)
    picked = pick_precision(name, device)
    assert (picked.name, picked.reason == "asked for") == (expected, name != "auto")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_the_precision(name, dtype):
    picked = pick_precision(name)
    with picked.autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == picked.dtype == dtype


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    origin = str(tmp_path / "checkout" / "course_utils" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin))
    monkeypatch.setenv("COURSE_DATA", "")
    assert data_root() == tmp_path / "data"  # installed: where you are
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert data_root() == tmp_path / "checkout" / "data"
    monkeypatch.delenv("COURSE_DATA")
    assert data_root() == tmp_path / "checkout" / "data"
    monkeypatch.setenv("COURSE_DATA", "elsewhere")
    assert data_root() == tmp_path / "elsewhere"
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path / "home"))
    monkeypatch.setenv("COURSE_DATA", "~/images")
    assert data_root() == tmp_path / "home" / "images"


def test_seed_everything_repeats_both_streams(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    draws = [(torch.rand((), generator=seed_everything(seed)).item(), torch.rand(()).item()) for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert all(first != other for first, other in zip(draws[0], draws[2], strict=True))
    assert torch.backends.cudnn.deterministic


def test_hardware_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert runtime.hardware_name(torch.device("cuda", 0)) == "Tesla T4"
    monkeypatch.setattr(runtime.platform, "machine", lambda: "arm64")
    assert runtime.hardware_name(torch.device("mps")) == "arm64 mps"
    for content, expected in (
        ("model name\t: EPYC 9\ncores: 2\nmodel name\t: EPYC 9\n", "EPYC 9"),
        ("", "arm64"),
        (None, "arm64 cpu"),
    ):
        monkeypatch.setattr(runtime.Path, "is_file", lambda self, content=content: content is not None)
        monkeypatch.setattr(runtime.Path, "read_text", lambda self, content=content: content)
        assert runtime.hardware_name(torch.device("cpu")) == expected


def test_versions_of_this_machine_are_allowed():
    check_versions()


@pytest.mark.parametrize("checkout", [True, False])
@pytest.mark.fault(
    "torch outside the allowed range", "faked version number", "what was found, what is expected, the remedy"
)
def test_versions_outside_the_range(checkout, monkeypatch, tmp_path):
    version = metadata.version
    if not checkout:  # installed without the repository around it
        monkeypatch.setattr(runtime, "checkout", lambda: None)
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.11", "tqdm>=4.67", 'ruff>=0.9; extra == "dev"'])
    monkeypatch.setattr(metadata, "version", lambda name: "2.10.9+cu130" if name == "torch" else version(name))
    with pytest.raises(ImportError) as caught:
        check_versions()
    assert str(caught.value).startswith(
        "torch is 2.10.9+cu130, expected >=2.11. Install them with: pip install --upgrade "
    )

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lambda name: missing(name) if name == "tqdm" else version(name))
    with pytest.raises(ImportError, match=r"^tqdm is missing, expected >=4\.67\. "):
        check_versions()
    monkeypatch.setattr(runtime, "checkout", lambda: None)
    monkeypatch.setattr(metadata, "requires", missing)
    check_versions()  # copied out of the package, its lists are not there


@pytest.mark.parametrize(("colab", "device"), [(False, "cpu"), (True, "cpu"), (True, "meta")])
def test_session_is_described(colab, device, monkeypatch, capsys):
    monkeypatch.setitem(runtime.sys.modules, "google.colab", SimpleNamespace()) if colab else None
    monkeypatch.setattr(runtime, "hardware_name", lambda device: f"a {device.type}")
    monkeypatch.setattr(runtime, "pick_precision", lambda name, device: SimpleNamespace(name="fp32", reason="why"))
    describe_session(torch.device(device))
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__} on a {device}" in printed and "fp32: why\n" in printed
    assert ("Change runtime type" in printed) == (colab and device == "cpu")


def test_checkpoints_go_where_they_are_asked_to(tmp_path):
    assert checkpoint_file(None, "S8") is None
    assert checkpoint_file(str(tmp_path), "S8") == tmp_path / "S8.checkpoint"
    assert checkpoint_file("~/runs", "S8") == Path.home() / "runs" / "S8.checkpoint"
    assert checkpoint_file("drive", "S8", drive=tmp_path) == tmp_path / "course" / "S8.checkpoint"
    assert checkpoint_file("drive", "S8", drive=tmp_path / "not mounted") is None
