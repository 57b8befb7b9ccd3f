"""`parts_of`: the code and the values that an object consists of; `digest`: a short hash of them."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from dis import get_instructions
from functools import partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MODULE_STATE = frozenset(vars(nn.Module()))  # weights, submodules, hooks and mode
VALUES = (bool, int, float, complex, str, bytes, type(None), PurePath, torch.dtype, torch.device, Tensor, np.ndarray)


def digest(*roots: Any) -> str:
    """Eight hexadecimal digits that tell code and values apart; the same in every process of the same Python version.

    Of a function counts what it computes: bytecode, defaults, captured and global values, and the functions that it
    calls, those of installed libraries by name alone. Comments, its docstring and its place in a file do not count.
    """
    sha256 = hashlib.sha256()
    for part in parts_of(roots):
        if isinstance(part, CodeType):
            part = (part.co_code, part.co_names, part.co_freevars, part.co_argcount)
        elif isinstance(part, Tensor):
            sha256.update(f"{part.dtype} {tuple(part.shape)}".encode())
            part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        elif isinstance(part, np.ndarray):
            sha256.update(f"{part.dtype} {part.shape}".encode())
            part = part.tolist() if part.dtype.hasobject else part.tobytes()
        sha256.update(part if isinstance(part, bytes) else repr(part).encode())
        sha256.update(b"\n")
    return sha256.hexdigest()[:8]


def parts_of(root: Any) -> Iterator[Any]:
    """The code objects, values and names of types that `root` consists of, each once, always in the same order."""
    seen: dict[int, tuple[int, Any]] = {}
    todo = [root]
    while todo:
        value = todo.pop()
        if isinstance(value, VALUES):
            yield value
        elif id(value) in seen:
            yield f"number {seen[id(value)][0]} again"
        else:
            seen[id(value)] = len(seen), value  # kept, so that nothing else gets its id
            name, inner = _opened(value)
            yield f"{name} of {len(inner)}"
            if isinstance(value, CodeType):
                yield value
            todo += reversed(inner)


def _opened(value: Any) -> tuple[str, list[Any]]:
    """What `value` is, and what it holds."""
    if isinstance(value, list | tuple):
        return "list", list(value[:])
    if isinstance(value, set | frozenset):
        return "set", sorted(value, key=repr)
    if isinstance(value, dict):
        return "dict", [each for pair in value.items() for each in pair]
    if isinstance(value, CodeType):
        return "code", list(value.co_consts)
    if isinstance(value, partial):
        return "partial", [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return "method", [value.__func__, value.__self__]
    if isinstance(value, ModuleType):
        return value.__name__, []
    if isinstance(value, type | FunctionType) and _in_library(value):
        return f"{value.__module__}.{value.__qualname__}", []
    if isinstance(value, FunctionType):
        return "function", [_without_docstring(value), value.__defaults__, value.__kwdefaults__, *_captured(value)]
    if isinstance(value, type):
        functions = (getattr(each, "__func__", each) for each in vars(value).values())  # also of static methods
        return "class", [*value.__bases__, *(each for each in functions if isinstance(each, FunctionType))]
    held = dict(getattr(value, "__dict__", {}))
    if isinstance(value, nn.Module):
        held = {name: each for name, each in held.items() if name not in MODULE_STATE and not _is_state(name, each)}
        return value.extra_repr(), [type(value), held, dict(value.named_children())]
    return getattr(value, "__qualname__", "object"), [type(value), held]


def _in_library(value: type | FunctionType) -> bool:
    package = str(value.__module__).partition(".")[0]
    if package == "__main__":  # the file of which may be that of a library which runs the code
        return False
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in sys.stdlib_module_names or "site-packages" in file or "dist-packages" in file


def _is_state(name: str, value: Any) -> bool:
    """What a layer notes while it computes, rather than how it computes."""
    return isinstance(value, Tensor) or (name.startswith("_") and not callable(value))


def _without_docstring(function: FunctionType) -> CodeType:
    first, *others = function.__code__.co_consts or (None,)
    return function.__code__.replace(co_consts=(None if first == function.__doc__ else first, *others))


def _captured(function: FunctionType) -> list[Any]:
    """The values of its free and global names, but builtins."""
    found = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    codes = [function.__code__]
    for code in codes:  # it grows
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    loads = {each.argval for code in codes for each in get_instructions(code) if each.opname == "LOAD_GLOBAL"}
    return found + [function.__globals__[name] for name in sorted(loads & function.__globals__.keys())]
