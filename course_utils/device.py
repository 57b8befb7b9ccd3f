"""The device, number format and memory layout to compute in, and the seed."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from course_utils.checks import one_of

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: the accelerator that torch finds (CUDA, Apple's MPS), else the CPU; or the one named.

    Raises `ValueError`, with the devices of this machine, for another one.
    """
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    one_of(name, "device", dict.fromkeys(("auto", "cpu", found.type)))
    return found if name == "auto" else torch.device(name)


def hardware_name(device: torch.device) -> str:
    """What computes there, for a record: the name of the graphics card or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and (info := Path("/proc/cpuinfo")).is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        return names[0] if names else platform.machine()
    return f"{platform.machine()} {device.type}"


@dataclass(frozen=True)
class Precision:
    """A number format for the forward pass, and why it was picked."""

    name: str
    dtype: torch.dtype
    reason: str

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The autocast context for this precision; it does nothing for fp32."""
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)


def _cpu_computes_bf16() -> bool:
    # Only these instructions multiply bf16 in hardware. Elsewhere autocast emulates it, ten times slower than fp32.
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def pick_precision(name: str = "auto", device: torch.device | str = "cpu") -> Precision:
    """The precision to train in on `device`: one of `"auto"`, `"fp32"`, `"bf16"`, `"fp16"`.

    `"auto"` is bf16 where the hardware multiplies it (CUDA compute capability 8.0 and up, CPUs with AVX512-BF16 or
    AMX), fp16 with a gradient scaler on older CUDA cards, and fp32 elsewhere. Raises `ValueError` for another name.
    """
    one_of(name, "precision", PRECISIONS)
    device = torch.device(device)
    reason = "asked for"
    if name == "auto" and device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name, reason = ("bf16" if major >= 8 else "fp16"), f"CUDA compute capability {major}.{minor}"
    elif name == "auto" and device.type == "cpu" and _cpu_computes_bf16():
        name, reason = "bf16", "this CPU multiplies bf16 in hardware"
    elif name == "auto":
        name, reason = "fp32", f"no fast half precision known for this {device.type} device"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return Precision(name, dtype, reason)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of `model` are; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def memory_format_of(model: nn.Module) -> torch.memory_format:
    """The faster layout for `model`: `channels_last`, but contiguous where it normalizes groups of channels on a CPU.

    Convolutions like `channels_last`. But there `group_norm` of bfloat16 takes 10 times as long forwards and backwards
    with 4 groups, 20 times with 8 (PyTorch 2.15, 128×32×32×32, one thread of an x86 CPU with AMX).
    """
    grouped = any(isinstance(module, nn.GroupNorm) and module.num_groups > 1 for module in model.modules())
    on_cpu = device_of(model).type == "cpu"
    return torch.contiguous_format if grouped and on_cpu else torch.channels_last


@dataclass(frozen=True)
class Placement:
    """Where and how a model computes: device, memory layout and number format, picked once."""

    device: torch.device
    layout: torch.memory_format
    precision: Precision

    @classmethod
    def of(cls, model: nn.Module, precision: str = "auto") -> "Placement":
        """The device of `model`, the faster layout for it there, and the precision of that name."""
        device = device_of(model)
        return cls(device, memory_format_of(model), pick_precision(precision, device))

    def images(self, images: Tensor) -> Tensor:
        """`images` on the device and in the layout; free where they are already."""
        return images.to(self.device, memory_format=self.layout, non_blocking=True)

    def logits(self, model: nn.Module, images: Tensor, num_classes: int | None = None) -> Tensor:
        """float32 logits, N×num_classes, of `images` that are placed; `ValueError` for an output of another shape."""
        with self.precision.autocast(self.device):
            logits = model(images)
        if logits.ndim != 2 or len(logits) != len(images) or num_classes not in (None, logits.shape[1]):
            expected = f"{len(images)}×{num_classes or 'classes'} logits for {len(images)} images"
            raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {expected}")
        return logits.float()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def seed_everything(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Seed torch's global streams (initial weights, dropout) and return a generator on `device` (order, augmentation).

    With the same seed, device and thread count a training run repeats bit for bit on the CPU.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    return torch.Generator(device).manual_seed(seed)
