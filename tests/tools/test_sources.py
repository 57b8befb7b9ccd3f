"""The package's source as a graph: what is defined and imported where."""

import pytest
import sources

SOURCE = '''
"""A module."""
import os.path
import numpy as np
from torch import nn
from course_utils import arguments
from course_utils.data import loader as images
from course_utils.training import fit

# The widths,
# in channels.
WIDTH, DEPTH = 8, 2
depth: int = 3


@decorated
def use(x):
    from course_utils.device import (
        pick_device,
    )
    import json

    return images.load(x), np.zeros(WIDTH)
'''
PACKAGE = {
    "": "",
    "arguments": "def one_of():\n    pass",
    "training": "from course_utils.training.loop import fit",
    "training.loop": "def fit():\n    pass",
    "data": "",
    "data.loader": "def load():\n    pass",
}


@pytest.fixture
def modules():
    return {name: sources.read(source) for name, source in PACKAGE.items()}


def test_what_a_module_holds():
    module = sources.read(SOURCE)
    assert set(module.definitions) == {"WIDTH", "DEPTH", "depth", "use"}
    assert module.definitions["DEPTH"] == "# The widths,\n# in channels.\nWIDTH, DEPTH = 8, 2"
    assert module.definitions["use"].startswith("@decorated\ndef use(x):\n    import json\n")
    assert {"images.load", "np.zeros", "WIDTH", "x"} <= module.uses["use"]
    assert module.internal == {
        "arguments": ("", "arguments"),
        "images": ("data", "loader"),
        "fit": ("training", "fit"),
        "pick_device": ("device", "pick_device"),
    }
    assert module.external == {
        "os": "import os.path",
        "np": "import numpy as np",
        "nn": "from torch import nn",
    }
    assert module.dotted == {"os": "os", "np": "numpy", "nn": "torch.nn", "json": "json"}


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("training.loop", "fit", ("training.loop", "fit")),
        ("training", "fit", ("training.loop", "fit")),  # imported there and defined elsewhere
        ("", "arguments", ("arguments", "")),
        ("data", "loader", ("data.loader", "")),
        ("data.loader", "", ("data.loader", "")),
    ],
)
def test_where_a_name_is_defined(module, name, expected, modules):
    assert sources.resolve(modules, module, name) == expected


@pytest.mark.parametrize(
    ("module", "name"), [("training", "train"), ("data", "fit"), ("nowhere", "x"), ("nowhere", "")]
)
def test_a_name_that_is_not_there(module, name, modules):
    with pytest.raises(ValueError, match=f"course_utils.{module} has no {name or 'such module'}"):
        sources.resolve(modules, module, name)


def test_what_is_used_of_the_package(modules):
    module = sources.read(SOURCE)
    names = {"images", "images.load", "fit", "fit.x", "np.zeros", "arguments.one_of", "other"}
    assert sources.used_of_package(modules, module, names) == {
        "images.load": ("data.loader", "load"),
        "fit": ("training.loop", "fit"),
        "arguments.one_of": ("arguments", "one_of"),
    }


def test_the_package_as_it_stands():
    """Python itself agrees on where each public name of a module is defined."""
    modules = sources.package()
    assert {"", "arguments", "training", "training.loop", "data.loader"} <= set(modules)
    import course_utils.training

    for name in course_utils.training.__all__:
        place, inside = sources.resolve(modules, "training", name)
        assert f"course_utils.{place}" == getattr(course_utils.training, name).__module__ and inside == name


def test_every_import_of_the_package_is_resolved():
    modules = sources.package()
    for module in modules.values():
        for place in module.internal.values():
            found, inside = sources.resolve(modules, *place)
            assert not inside or inside in modules[found].definitions


def test_a_value_is_made_by_all_its_statements():
    module = sources.read("import math\n\nTABLE = {1: 2}\nOTHER = 3\n# More.\nTABLE |= {3: math.pi}\n")
    assert module.definitions == {"TABLE": "TABLE = {1: 2}\n# More.\nTABLE |= {3: math.pi}", "OTHER": "OTHER = 3"}
    assert "math" in module.uses["TABLE"]
