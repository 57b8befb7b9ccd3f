"""What the site shows of the package and of its records: runs for the results explorer, networks for the playground."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from html import escape
from typing import Any

import pandas as pd
import torch
from torch import nn

from course_utils.analysis.networks import budget, receptive_field
from course_utils.exercises.rules import S8_RULES, S9_RULES, audit
from course_utils.files import REFERENCE
from course_utils.networks import NETWORKS, make_network
from course_utils.runs.bands import read_bands
from course_utils.runs.reference import SESSIONS, load_lesson, reference_table
from course_utils.runs.run import Job, Run, load_runs

RULES = {"S9": S9_RULES, "S8": S8_RULES}


def _text(value) -> str:
    if isinstance(value, int | float):
        return "" if pd.isna(value) else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return str(value if value is not None else "")


def as_html(table: pd.DataFrame, label: str, name: str = "") -> str:
    """A table that scrolls by itself where it is wider than the page; what is missing stays empty."""

    def row(tag: str, values: Iterable) -> str:
        cells = zip(classes, map(escape, map(_text, values)), strict=True)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{text}</{tag}>' for kind, text in cells) + "</tr>"

    numeric = [pd.to_numeric(table[column], errors="coerce").notna() | table[column].isna() for column in table]
    classes = ["number" if column.all() else "text" for column in numeric]
    body = "\n".join(row("td", values) for values in table.astype(object).itertuples(index=False))
    head = f"<thead>{row('th', table.columns)}</thead>"
    content = f'<table class="table" id="{name}">{head}<tbody>\n{body}\n</tbody></table>'
    return f'<div class="scrolling" role="region" aria-label="{label}" tabindex="0">{content}</div>'


def embedded(name: str, content) -> str:
    """Data inside a page: a page that is opened as a file may not read other files."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    return f'<script type="application/json" id="{name}">{text}</script>'


def vega() -> str:
    """The charts' library as one script, `vegaEmbed`."""
    import vl_convert  # only here: no test needs it

    return f"(() => {{{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}}})();"


@cache
def _cost(network: str, norm: str, options: tuple) -> dict:
    model = make_network(network, norm=norm, **dict(options))
    cost, fields = budget(model), receptive_field(model)
    field = fields[fields.size_out > 1].receptive_field.max()  # before the global average
    return {"parameters": cost.parameters, "multiply-adds": cost.macs, "receptive field": int(field)}


def _row(study: str, name: str, run: Run, cost: dict) -> dict:
    def per_cent(share: float | None) -> float | None:
        return None if share is None else round(100 * share, 2)

    job = run.job
    row: dict[str, Any] = {"study": study, "run": name, "network": job.network, "norm": job.norm, "data": run.data}
    row |= {"epochs": run.epochs, "images": run.train_images, "batch size": job.batch_size, "seed": job.seed}
    row |= {"test accuracy (%)": per_cent(run.test_accuracy), "validation accuracy (%)": per_cent(run.val_accuracy)}
    row |= cost | {"seconds": round(run.history.seconds)}
    return row | {"curves": [asdict(metrics) for metrics in run.history.metrics]}


def _named(job: Job) -> str:
    return ", ".join([job.network, job.norm, *(f"{name}={value}" for name, value in job.options.items())])


def results() -> pd.DataFrame:
    """One row for every recorded run: reference runs, the full runs of the notebooks, and their short studies.

    `curves` has the metrics of each epoch. A short study may have changed its network, so no cost is given for it.
    """
    rows, none = [], dict.fromkeys(("parameters", "multiply-adds", "receptive field"))

    def cost(job: Job) -> dict:
        return _cost(job.network, job.norm, tuple(job.options.items()))

    rows += [_row("reference runs", _named(run.job), run, cost(run.job)) for run in load_runs(REFERENCE)]
    for file in sorted(SESSIONS.glob("*.json")):
        session, lesson = file.stem.partition("_")[0], load_lesson(file.stem)
        rows += [_row(f"{session}, runs", _named(run.job), run, cost(run.job)) for run in lesson["runs"].values()]
        rows += [_row(f"{session}, short studies", name, run, none) for name, run in lesson["studies"].items()]
    # `object`: a number stays what it is beside a missing one.
    return pd.DataFrame(rows, dtype=object).where(lambda table: table.notna(), None)


def summary() -> pd.DataFrame:
    """The reference table, for printing."""
    table = reference_table().round(2)
    return table.rename(columns={"mean": "test accuracy (%)", "std": "± over seeds"})


def bands() -> pd.DataFrame:
    """The entries of `bands.yaml`, for printing."""
    rows = []
    for entry in read_bands():
        run = {
            name: " or ".join(map(str, each)) if isinstance(each, list) else each for name, each in entry["run"].items()
        }
        low, high = entry["band"]
        rows.append(run | {"test accuracy (%)": f"{100 * low:g} to {100 * high:g}", "why": entry["why"]})
    return pd.DataFrame(rows).rename(columns=lambda column: column.replace("_", " "))


def layer_line(module: nn.Module) -> str:
    """A layer as the playground writes it; `ValueError` for one that it does not know."""
    if isinstance(module, nn.Conv2d):
        line = f"conv {module.out_channels} k{module.kernel_size[0]}"
        for letter, value, default in zip(
            "spdg", (module.stride[0], module.padding[0], module.dilation[0], module.groups), (1, 0, 1, 1), strict=True
        ):
            line += f" {letter}{value}" if value != default else ""
        return line + ("" if module.bias is not None else " nobias")
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return f"{'maxpool' if isinstance(module, nn.MaxPool2d) else 'avgpool'} k{module.kernel_size} s{module.stride}"
    if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        return "norm"
    words = {nn.ReLU: "relu", nn.Dropout: "dropout", nn.AdaptiveAvgPool2d: "average"}
    if type(module) not in words:
        raise ValueError(f"unknown layer {module}, expected one that the playground knows")
    return words[type(module)]


def playground() -> dict:
    """The course networks as lists of layers, and the rules with their texts; a batch for the means."""
    networks = {}
    for name in NETWORKS:
        leaves = [module for module in make_network(name).modules() if not list(module.children())]
        networks[name] = "\n".join(map(layer_line, leaves))
    some = make_network(next(iter(NETWORKS)))
    rules = {
        name: {"asked": asdict(rules), "texts": audit(some, rules)["rule"].tolist()} for name, rules in RULES.items()
    }
    batch = torch.randint(0, 10, (4, 8, 2, 2), generator=torch.Generator().manual_seed(0))
    return {"networks": networks, "rules": rules, "batch": batch.tolist()}
