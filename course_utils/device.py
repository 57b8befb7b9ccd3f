"""The device, number format and memory layout to compute in, and the seed."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import torch
from torch import Tensor, nn

from course_utils.arguments import number, one_of
from course_utils.digest import parts_of

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
OF_WEIGHTS = {torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16"}  # without autocast
ADVICE = {  # on what PyTorch says where a network is not to blame alone
    "Expected more than 1 value per channel": "batch normalization cannot train on a single image, as here in the last "
    "batch: choose a batch_size that leaves more images for it, or drop_last=True in a DataLoader",
    "Kernel size can't be greater": "the images are too small for this network, at their own size or at the "
    "small_size of the recipe",
    "view size is not compatible": "write x.flatten(1) or x.reshape(...) in place of x.view(...)",
}


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: the accelerator that torch finds (CUDA, Apple's MPS), else the CPU; or the one named.

    One of several graphics cards is named by its number, as `"cuda:1"`. Raises `ValueError`, with the devices of this
    machine, for another one.
    """
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    numbered = (f"{found.type}:{index}" for index in range(torch.accelerator.device_count()))
    one_of(str(name), "device", dict.fromkeys(("auto", "cpu", found.type, *numbered)))
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
    """A number format for the forward pass, why it was picked, and that of the weights."""

    name: str
    dtype: torch.dtype
    reason: str
    weights: torch.dtype = torch.float32

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The autocast context for this precision; it does nothing where the weights have it already."""
        enabled = self.dtype is not self.weights
        return torch.autocast(device.type, dtype=self.dtype if enabled else None, enabled=enabled)


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


def check_network(model: object) -> None:
    """Raise `TypeError` for what is no network: its class, most often."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(f"model is {what}, expected a network, like S8Net46k()")


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of `model` are; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def memory_format_of(model: nn.Module) -> torch.memory_format:
    """The faster layout for `model`: `channels_last`, but contiguous where it normalizes groups of channels on a CPU.

    It is contiguous, too, where the network's own code calls `.view`, which fails on what convolutions give else.
    Convolutions like `channels_last`. But there `group_norm` of bfloat16 takes 10 times as long forwards and backwards
    with 4 groups, 20 times with 8 (PyTorch 2.15, 128×32×32×32, one thread of an x86 CPU with AMX).
    """
    grouped = any(isinstance(module, nn.GroupNorm) and module.num_groups > 1 for module in model.modules())
    on_cpu = device_of(model).type == "cpu"
    views = any(isinstance(part, CodeType) and "view" in part.co_names for part in parts_of(model))
    volumes = any(parameter.ndim == 5 for parameter in model.parameters())  # which have no such layout
    return torch.contiguous_format if (grouped and on_cpu) or views or volumes else torch.channels_last


@dataclass(frozen=True)
class Placement:
    """Where and how a model computes: device, memory layout and number format, picked once."""

    device: torch.device
    layout: torch.memory_format
    precision: Precision

    @classmethod
    def of(cls, model: nn.Module, precision: str = "auto") -> "Placement":
        """The device of `model`, the faster layout for it there, and the precision of that name.

        A network whose weights are not float32 computes in their format. Raises `TypeError` for what is no network.
        """
        check_network(model)
        device = device_of(model)
        picked = pick_precision(precision, device)
        weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        if weights in OF_WEIGHTS:
            picked = Precision(OF_WEIGHTS[weights], weights, "that of the weights", weights)
        return cls(device, memory_format_of(model), picked)

    def images(self, images: Tensor) -> Tensor:
        """`images` on the device, in the layout and in the weights' number format; free where they are already."""
        if not images.is_floating_point() or len(images) == 0:
            given = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"images are {given}, expected at least one, in normalized floating-point numbers")
        layout = self.layout if images.ndim == 4 else torch.preserve_format
        return images.to(self.device, self.precision.weights, memory_format=layout, non_blocking=True)

    def labels(self, labels: Tensor, count: int) -> Tensor:
        """`labels` of `count` images on the device, int64, one class each; `ValueError` for anything else."""
        whole = not labels.is_floating_point() and not labels.is_complex()
        if not whole or labels.shape not in ((count,), (count, 1)):
            given = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(
                f"labels are {given}, expected int64 of shape ({count},), a class for each image; labels.argmax(1) "
                "makes them of one-hot ones, labels.long() of floats"
            )
        return labels.reshape(count).to(self.device, torch.int64, non_blocking=True)

    def logits(self, model: nn.Module, images: Tensor, num_classes: int | None = None) -> Tensor:
        """Logits, N×num_classes, of `images` that are placed, in float32 or, for weights in it, float64.

        Raises `ValueError` for another output, and with an advice where PyTorch's own words do not help.
        """
        try:
            with self.precision.autocast(self.device):
                logits = model(images)
        except (RuntimeError, ValueError) as error:
            advice = next((text for words, text in ADVICE.items() if words in str(error)), None)
            if advice is None:
                raise
            raise ValueError(f"{error}. Here: {advice}") from error
        expected = f"{len(images)}×{num_classes or 'classes'} logits for {len(images)} images"
        if not isinstance(logits, Tensor):
            kind = f"{type(logits).__name__} of {len(logits)}" if hasattr(logits, "__len__") else type(logits).__name__
            raise ValueError(f"the network's output is a {kind}, expected a tensor of {expected}")
        if logits.ndim != 2 or len(logits) != len(images) or num_classes not in (None, logits.shape[1]):
            raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {expected}")
        return logits if logits.dtype is torch.float64 else logits.float()


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

    With the same seed, device and thread count a training run repeats bit for bit on the CPU. Raises `ValueError` for a
    seed that is no whole number from 0 to below 2**64.
    """
    seed = number(seed, "seed", 0, 2**64, whole=True)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    return torch.Generator(device).manual_seed(seed)
