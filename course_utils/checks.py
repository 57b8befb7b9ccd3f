"""Refuse a value where it comes in, and list what is accepted."""

from collections.abc import Collection


def one_of(value: str, what: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`; else raise `ValueError` that lists them."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}, expected one of {', '.join(choices)}")
    return value
