"""Where am I, and in which state: device, precision, mode, data folder, seed."""

import importlib.util
import os
import platform
import sys
import tomllib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from torch import nn

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def choose(value: str, choices, what: str) -> str:
    """Return `value` if it is one of `choices`; a `ValueError` that lists them otherwise."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}, expected one of {', '.join(choices)}")
    return value


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: the accelerator that torch finds (CUDA, Apple's MPS), else the CPU; or the one named.

    Raises `ValueError`, with the devices of this machine, for another one.
    """
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    choose(name, dict.fromkeys(("auto", "cpu", found.type)), "device")
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
    choose(name, PRECISIONS, "precision")
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


def check_versions() -> None:
    """Raise `ImportError` that names every package which is missing or older than the course is tested with."""
    if root := checkout():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        requirements = project["dependencies"]
    else:
        try:
            requirements = [line for line in metadata.requires("course-utils") if "extra ==" not in line]
        except metadata.PackageNotFoundError:  # neither checkout nor package: copied into a notebook
            return
    problems = []
    for requirement in map(Requirement, requirements):
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing, expected {requirement.specifier}")
        else:
            if not requirement.specifier.contains(found, prereleases=True):
                problems.append(f"{requirement.name} is {found}, expected {requirement.specifier}")
    if problems:
        raise ImportError("; ".join(problems) + ". Install them with: pip install --upgrade " + " ".join(requirements))


def describe_session(device: torch.device) -> None:
    """Print what the notebook runs on: versions, device, number format; in Colab also how to get a GPU."""
    check_versions()
    precision = pick_precision("auto", device)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{versions} on {hardware_name(device)}, threads: {torch.get_num_threads()}")
    print(f"{precision.name}: {precision.reason}")
    if "google.colab" in sys.modules and device.type == "cpu":
        print("A GPU is ten times as fast: Runtime, Change runtime type, T4 GPU; then run all cells from the top")


def checkpoint_file(where: str | None, name: str, drive: Path = Path("/content/drive/MyDrive")) -> Path | None:
    """The file for the checkpoints of the run `name`, for `fit`; None for no checkpoints.

    `where`: `"drive"`, a folder of Google Drive where it is mounted, and else none; a folder; or None.
    """
    if where == "drive":
        return drive / "course" / f"{name}.checkpoint" if drive.is_dir() else None
    return Path(where).expanduser() / f"{name}.checkpoint" if where else None


def checkout() -> Path | None:
    """The folder of the repository that this package is used from; None where it was installed without one."""
    package = importlib.util.find_spec("course_utils")
    root = Path(package.origin).resolve().parents[1] if package and package.origin else None
    return root if root and (root / "pyproject.toml").is_file() else None


def data_root() -> Path:
    """The folder for data sets: `COURSE_DATA` if set, else `data/` of the checkout, else `data/` where you are."""
    if os.environ.get("COURSE_DATA"):
        return Path(os.environ["COURSE_DATA"]).expanduser().resolve()
    return (checkout() or Path.cwd()) / "data"


def seed_everything(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Seed torch's global streams (initial weights, dropout) and return a generator on `device` (order, augmentation).

    With the same seed, device and thread count a training run repeats bit for bit on the CPU.
    """
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    return torch.Generator(device).manual_seed(seed)
