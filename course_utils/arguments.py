"""Refuse a value where it comes in, and list what is accepted."""

import math
from collections.abc import Collection
from typing import Any


def one_of(value: str, what: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`; else raise `ValueError` that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {what} {value!r}, expected one of {', '.join(choices)}")
    return value


def number(
    value: Any,
    what: str,
    low: float,
    below: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
    note: str = "",
) -> Any:
    """Return `value` as Python's number; `ValueError` unless it is one from `low` (with `above`: above it) to `below`.

    Numbers of NumPy and torch are numbers; texts, truth values, NaN, and with `whole` fractions, are not. `note` ends
    the error: whose number the limit is, what else is accepted.
    """
    given = value.item() if getattr(value, "ndim", None) == 0 else value
    right = isinstance(given, int if whole else (int, float)) and not isinstance(given, bool)
    if not right or not (low < given if above else low <= given) or not given < below:
        upper = f"{below - 1}" if whole else f"below {below:g}"
        limit = f"above {low}" if above else f"of at least {low}" if below == math.inf else f"from {low} to {upper}"
        raise ValueError(f"{what} is {value!r}, expected a {'whole ' if whole else ''}number {limit}{note}")
    return given


def truth(value: Any, what: str) -> bool:
    """Return `value` as Python's True or False, which it must be, or NumPy's; else raise `ValueError`."""
    if not isinstance(as_json(value), bool):
        raise ValueError(f"{what} is {value!r}, expected True or False")
    return as_json(value)


def as_json(value: Any) -> Any:
    """`value` in the types that JSON gives back: arrays and numbers of NumPy and torch as Python's, tuples as lists."""
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value
