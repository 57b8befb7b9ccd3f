"""The folder for data sets, and where checkpoints go."""

import importlib.util
import re
from types import SimpleNamespace

import pytest

from course_utils.files import checkpoint_file, data_root, repository_root


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    origin = str(tmp_path / "checkout" / "course_utils" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin))
    monkeypatch.setenv("COURSE_DATA", "")
    assert data_root() == tmp_path / "data"  # installed: where you are
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert data_root() == tmp_path / "checkout" / "data"
    monkeypatch.delenv("COURSE_DATA")
    assert data_root() == tmp_path / "checkout" / "data"
    monkeypatch.setenv("COURSE_DATA", "elsewhere")
    assert data_root() == tmp_path / "elsewhere"
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path / "home"))
    monkeypatch.setenv("COURSE_DATA", "~/images")
    assert data_root() == tmp_path / "home" / "images"


def test_a_copy_without_the_package_has_no_repository(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert repository_root() is None


def test_checkpoints_go_where_they_are_asked_to(tmp_path, monkeypatch):
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path / "home"))
    for none in (None, ""):
        assert checkpoint_file(none, "S8") is None
    assert checkpoint_file(str(tmp_path), "S8") == checkpoint_file(tmp_path, "S8") == tmp_path / "S8.checkpoint"
    assert checkpoint_file("~/new/runs", "S8") == tmp_path / "home" / "new" / "runs" / "S8.checkpoint"
    assert (tmp_path / "home" / "new" / "runs").is_dir()
    assert checkpoint_file("drive", "S8", drive=tmp_path) == tmp_path / "course" / "S8.checkpoint"
    assert checkpoint_file("drive", "S8", drive=tmp_path / "not mounted") is None


def test_places_where_no_checkpoint_can_be(tmp_path):
    for where in (True, False, 5, ["runs"]):
        with pytest.raises(
            ValueError, match=re.escape(f"checkpoints is {where!r}, expected 'drive', a folder or None")
        ):
            checkpoint_file(where, "S8")
    (tmp_path / "file").touch()
    for where in (tmp_path / "file", str(tmp_path / "file" / "below")):
        with pytest.raises(ValueError, match=r"checkpoints is '.*', expected a folder: it cannot be made"):
            checkpoint_file(where, "S8")
