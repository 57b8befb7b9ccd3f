"""The benchmark still runs and writes what it promises; how fast, it says itself."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import bench


@pytest.fixture
def record(shapes, tmp_path, monkeypatch) -> dict:
    """What a run of one round on a few images writes."""
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    monkeypatch.setattr(bench, "load_images", lambda name: (shapes[0][:512], shapes[1]))
    monkeypatch.setattr(bench, "peak_of_child", lambda *arguments: 1.0)
    monkeypatch.setattr(bench, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--networks", "S8Net31k", "--rounds", "1", "--device", "cpu"])
    bench.main()
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    return json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))


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
