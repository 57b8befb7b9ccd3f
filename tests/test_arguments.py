"""Values are refused where they come in, with what was given and what is accepted."""

import math
import re

import numpy as np
import pytest
import torch

from course_utils.arguments import as_json, number, one_of, truth


def test_one_of():
    assert one_of("b", "letter", ("a", "b")) == "b"
    for other in ("c", None, 1):
        with pytest.raises(ValueError, match=f"^unknown letter {other!r}, expected one of a, b$"):
            one_of(other, "letter", ("a", "b"))


@pytest.mark.parametrize("given", [2, 2.5, 0, np.int64(3), np.float32(0.5), torch.tensor(4), torch.tensor(0.25)])
def test_numbers_become_those_of_python(given):
    found = number(given, "width", 0, 5)
    assert found == given and type(found) in (int, float)


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        (-1, {}, "width is -1, expected a number of at least 0"),
        (math.nan, {}, "width is nan, expected a number of at least 0"),
        (math.inf, {}, "width is inf, expected a number of at least 0"),
        ("2", {}, "width is '2', expected a number of at least 0"),
        (True, {}, "width is True, expected a number of at least 0"),
        ([2], {}, "width is [2], expected a number of at least 0"),
        (0, {"above": True}, "width is 0, expected a number above 0"),
        (5, {"below": 5}, "width is 5, expected a number from 0 to below 5"),
        (5, {"below": 5, "whole": True}, "width is 5, expected a whole number from 0 to 4"),
        (2.0, {"whole": True, "note": ", or None"}, "width is 2.0, expected a whole number of at least 0, or None"),
    ],
)
def test_other_numbers_are_refused(given, options, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        number(given, "width", 0, **options)


def test_truth():
    for given in (True, False, np.bool_(True), np.bool_(False)):
        assert truth(given, "shuffle") is bool(given)
    for other in (1, 0.0, "yes", None):
        with pytest.raises(ValueError, match=f"^shuffle is {other!r}, expected True or False$"):
            truth(other, "shuffle")


def test_as_json():
    given = {"a": (1, np.float64(0.5)), "b": [torch.tensor([1, 2]), np.bool_(True)], "c": {"d": None, "e": "text"}}
    found = as_json(given)
    assert found == {"a": [1, 0.5], "b": [[1, 2], True], "c": {"d": None, "e": "text"}}
    assert type(found["a"]) is list and type(found["a"][1]) is float and type(found["b"][1]) is bool
