"""Devices, precisions, memory formats and seeds; errors list the choices."""

import numpy as np
import pytest
import torch

from course_utils import device
from course_utils.device import memory_format_of, pick_device, pick_precision, seed_everything
from course_utils.networks.layers import make_norm


def test_unknown_precisions_are_refused():
    with pytest.raises(ValueError, match=r"unknown precision 'fp8', expected one of auto, fp32, bf16, fp16$"):
        pick_precision("fp8")


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


def test_second_graphics_card(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **options: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert pick_device("cuda:1") == pick_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="unknown device 'cuda:2', expected one of auto, cpu, cuda, cuda:0, cuda:1"):
        pick_device("cuda:2")


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


def test_seed_everything_repeats_both_streams(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    draws = [(torch.rand((), generator=seed_everything(seed)).item(), torch.rand(()).item()) for seed in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert all(first != other for first, other in zip(draws[0], draws[2], strict=True))
    assert torch.backends.cudnn.deterministic


def test_seeds():
    assert torch.rand((), generator=seed_everything(np.int64(3))) == torch.rand((), generator=seed_everything(3))
    for seed in (None, 1.5, "1", True, -1, 2**64):
        with pytest.raises(ValueError, match=f"seed is {seed!r}, expected a whole number from 0 to"):
            seed_everything(seed)


def test_volumes_keep_their_layout():
    assert memory_format_of(torch.nn.Conv3d(3, 4, 1)) is torch.contiguous_format


def test_hardware_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert device.hardware_name(torch.device("cuda", 0)) == "Tesla T4"
    monkeypatch.setattr(device.platform, "machine", lambda: "arm64")
    assert device.hardware_name(torch.device("mps")) == "arm64 mps"
    for content, expected in (
        ("model name\t: EPYC 9\ncores: 2\nmodel name\t: EPYC 9\n", "EPYC 9"),
        ("", "arm64"),
        (None, "arm64 cpu"),
    ):
        monkeypatch.setattr(device.Path, "is_file", lambda self, content=content: content is not None)
        monkeypatch.setattr(device.Path, "read_text", lambda self, content=content: content)
        assert device.hardware_name(torch.device("cpu")) == expected
