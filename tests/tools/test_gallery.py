"""The gallery of mistakes still fits the course, and a sample is noticed; `make slow-gallery` makes all of them."""

import pytest
from gallery_check import GALLERY, ROOT, check, make_mistake

SAMPLE = ["layer normalization over the wrong axes"]


def test_entries_are_named_once():
    names = [entry["name"] for entry in GALLERY]
    assert len(names) == len(set(names)) >= 20


@pytest.mark.parametrize("entry", GALLERY, ids=lambda entry: entry["name"])
def test_mistake_can_be_made(entry, tmp_path):
    assert set(entry) == {"name", "file", "old", "new", "caught_by", "message"} and entry["message"]
    target = tmp_path / entry["file"]
    target.parent.mkdir(parents=True)
    before = (ROOT / entry["file"]).read_text(encoding="utf-8")
    target.write_text(before, encoding="utf-8")
    make_mistake(entry, tmp_path)
    after = target.read_text(encoding="utf-8")
    assert after != before
    if target.suffix == ".py":
        compile(after, target.name, "exec")


@pytest.mark.parametrize("entry", [e for e in GALLERY if e["name"] in SAMPLE], ids=lambda entry: entry["name"])
def test_sample_is_noticed(entry, tmp_path):
    check(entry, tmp_path)


def test_entry_that_fits_no_more(tmp_path):
    (tmp_path / "file.py").write_text("x = 1\n")
    entry = {"name": "y", "file": "file.py", "old": "y = 1", "new": "y = 2"}
    with pytest.raises(ValueError, match=r"'y': file\.py does not have 'y = 1' any more"):
        make_mistake(entry, tmp_path)
