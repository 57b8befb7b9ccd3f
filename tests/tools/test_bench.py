"""The benchmark still runs and writes what it promises; how fast, it says itself."""

import argparse
import json
import sys
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import bench
import pytest
import torch

from course_utils.training import Recipe


@pytest.fixture
def record(shapes, tmp_path, monkeypatch) -> dict:
    """What a run of one round on a few images writes."""
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    monkeypatch.setattr(bench, "BATCH", 32)
    monkeypatch.setattr(bench, "load_images", lambda name: (shapes[0][:128], shapes[1]))
    monkeypatch.setattr(bench, "peak_of_child", lambda *arguments: 1.0)
    monkeypatch.setattr(bench, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--networks", "S8Net31k", "--rounds", "1", "--device", "cpu"])
    bench.main()
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    return json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))


def test_small_epochs_take_their_own_seconds():
    recipe = Recipe(epochs=5, small_epochs=3)
    assert bench.seconds_to_train(recipe, 100.0, 250.0) == pytest.approx(2 * 500 + 3 * 200)


def test_time_to_the_published_accuracy_multiplies_epochs_and_seconds(monkeypatch, shapes):
    usual = ["torchvision v1, 0 workers", "torchvision v2, 2 workers", "albumentations, 0 workers"]
    recipe = Recipe(epochs=5, small_epochs=2)
    monkeypatch.setattr(bench, "shortest_recipe", lambda name: recipe)
    speeds = {"ours": [9.0] * 3, "limit": [9.0] * 3, "ours, muon": [400.0, 300.0, 200.0]}
    speeds |= {"ours, muon, 24 pixels": [800.0, 600.0, 400.0]}
    speeds |= {usual[0]: [99.0, 10.0, 50.0], usual[1]: [100.0, 50.0, 10.0], usual[2]: [1000.0] * 3}
    lengths = {factor: [1.0] * 3 for factor in ("1", "2", "4")}
    monkeypatch.setattr(bench, "UsualWays", lambda *_: nullcontext(SimpleNamespace(names=usual, epoch=print)))
    monkeypatch.setattr(
        bench, "take_turns", lambda ways, *_: {way: (speeds | lengths).get(way, [1.0] * 3) for way in ways}
    )
    options = argparse.Namespace(rounds=3, same_allocator=False)
    goal = bench.measure_network("S8Net46k", shapes[0][:512], options, torch.device("cpu"))["to_the_published_accuracy"]
    assert goal["epochs"] == {"usual": 20, "ours": 5, "of small images": 2}
    assert goal["seconds"] == {"usual": 20 * 50_000 / 50, "ours": round((3 + 2 / 2) * 50_000 / 300)}
    assert [goal["ratio"], *goal["lowest and highest ratio"]] == pytest.approx([4 * 20 / 4, 4 * 20 / 4, 6 * 20 / 4])


def test_every_round_begins_with_another_way():
    order = []
    ways = {name: partial(order.append, name) for name in "abc"}
    speeds = bench.take_turns(ways, 8, 2, torch.device("cpu"))
    assert "".join(order) == "abcbcacab" and [len(found) for found in speeds.values()] == [2, 2, 2]


def test_bench_writes_its_record(record):
    assert record["rounds"] == 1 and record["device"]
    (figures,) = record["networks"].values()
    speeds = figures["images_per_second"]
    ways = [f"torchvision v{version}, {workers} workers" for version in (1, 2) for workers in (0, 2)]
    assert set(speeds) >= {"ours", "limit", *ways}
    assert figures["ratio_to_limit"] == pytest.approx(speeds["ours"] / speeds["limit"], rel=0.01)
    assert figures["ratio_to_usual"] == pytest.approx(speeds["ours"] / max(speeds[way] for way in ways), rel=0.01)
    positive = ("time_ratio_2x_data", "time_ratio_4x_data", "loader_images_per_second")
    assert all(figures[name] > 0 for name in positive) and set(figures["peak_mebibytes_by_data"]) == {"1", "2", "4"}


def test_few_rounds_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--rounds", "3"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "--rounds is 3, expected at least 7" in capsys.readouterr().err
