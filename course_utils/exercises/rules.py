"""`audit`: does a network keep the rules of an assignment?"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from course_utils.analysis.operations import Operation, trace


@dataclass(frozen=True)
class Rules:
    """What an assignment asks for; what is left at its default is not asked for.

    `max_parameters`: fewer than that. `min_receptive_field`: more pixels than that, before the global average.
    `transitions`: exactly so many 1×1 convolutions followed by pooling. `strided`, `separable`, `dilated`: at least so
    many 3×3 convolutions with a stride, depthwise convolutions followed by a 1×1, and dilated convolutions.
    `min_accuracy`: share of the test images, after at most `max_epochs`.
    """

    max_parameters: int | None = None
    min_receptive_field: int | None = None
    transitions: int | None = None
    max_pooling: bool = True
    strided: int | None = None
    separable: int | None = None
    dilated: int | None = None
    global_average: bool = False
    fully_connected: bool = True
    min_accuracy: float | None = None
    max_epochs: int | None = None


S8_RULES = Rules(
    max_parameters=50_000, transitions=2, global_average=True, fully_connected=False, min_accuracy=0.70, max_epochs=20
)


S9_RULES = Rules(
    max_parameters=200_000,
    min_receptive_field=44,
    max_pooling=False,
    strided=1,
    separable=1,
    dilated=1,
    global_average=True,
    min_accuracy=0.85,
)


def _last_collapse(output: Operation) -> set[str]:
    """By what kind of operation the grid became the numbers that the output is made of."""
    kinds, seen, todo = set(), set(), [output]
    while todo:
        operation = todo.pop()
        if operation.collapses:
            kinds.add(operation.kind)
        elif operation not in seen:
            todo += operation.before
        seen.add(operation)
    return kinds


def _followed_by(found: list[Operation], first: Callable[[Operation], bool], then: Callable[[Operation], bool]) -> int:
    """How many operations are `first` and lead to one that is `then`, with nothing but norms and the like between."""
    hits, seen = set(), set()
    todo = [source for operation in filter(then, found) for source in operation.before]
    while todo:
        source = todo.pop()
        if first(source):
            hits.add(source)
        elif source.kind == "other" and source not in seen:
            todo += source.before
        seen.add(source)
    return len(hits)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def audit(
    model: nn.Module,
    rules: Rules,
    *,
    test_accuracy: float | None = None,
    epochs: int | None = None,
    input_size: tuple[int, int, int] = (3, 32, 32),
) -> pd.DataFrame:
    """One row for each rule: what it asks for, what was found, and whether it passes.

    `test_accuracy` (share of 1) and `epochs` are what you measured; what is not given is "not known", and neither is
    the receptive field after an operation that cannot be followed.
    """
    if test_accuracy is not None and not 0 <= test_accuracy <= 1:
        raise ValueError(f"test_accuracy is {test_accuracy}, expected a share from 0 to 1, as 0.85 for 85 %")
    found = trace(model, input_size)
    convolutions = [operation for operation in found if operation.kind == "convolution"]
    parameters = sum(p.numel() for p in model.parameters())  # what is shared counts once
    grids = [operation.grid for operation in found if operation.grid.sizes and operation.grid.cells > 1]
    lost = next((f"{grid.lost} cannot be followed" for grid in grids if grid.lost), None)
    field = lost or max((min(grid.field) for grid in grids), default=1)
    transitions = _followed_by(found, lambda o: o.pointwise, lambda o: o.pools)
    pooled, connected = (sum(o.kind == kind for o in found) for kind in ("max pooling", "linear"))
    strided = sum(max(o.window.stride) > 1 and set(o.window.kernel) == {3} for o in convolutions)
    separable = _followed_by(found, lambda o: o.depthwise and max(o.window.kernel) > 1, lambda o: o.pointwise)
    dilated = sum(max(o.window.dilation) > 1 and max(o.window.kernel) > 1 for o in convolutions)
    collapse = " and ".join(sorted(_last_collapse(found[-1]))) or "none"
    table: list[tuple[Any, str, Any, Callable[[Any, Any], bool]]] = [
        (rules.max_parameters, "fewer than {:,} parameters", parameters, operator.lt),
        (rules.min_receptive_field, "receptive field over {}", field, operator.gt),
        (rules.transitions, "{} transitions (1×1, then pooling)", transitions, operator.eq),
        (None if rules.max_pooling else 0, "no max-pooling", pooled, operator.eq),
        (rules.strided, "at least {} strided 3×3 convolution", strided, operator.ge),
        (rules.separable, "at least {} depthwise-separable convolution", separable, operator.ge),
        (rules.dilated, "at least {} dilated convolution", dilated, operator.ge),
        ("average pooling" if rules.global_average else None, "global {}", collapse, operator.eq),
        (None if rules.fully_connected else 0, "no fully connected layer", connected, operator.eq),
        (
            _percent(rules.min_accuracy),
            "at least {:g} % of the test images",
            _percent(test_accuracy),
            operator.ge,
        ),
        (rules.max_epochs, "at most {} epochs", epochs, operator.le),
    ]
    rows = []
    for asked, rule, figure, holds in table:
        if asked is not None:
            known = figure is not None and figure is not lost
            passes = "not known" if not known else "yes" if holds(figure, asked) else "NO"
            rows.append({"rule": rule.format(asked), "found": figure, "passes": passes})
    return pd.DataFrame(rows)
