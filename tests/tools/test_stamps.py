"""What makes an output stale: a table of changes of a small package and of the real one, with the cells they hit."""

import ast
import copy
import json
import shutil
import symtable

import nbformat
import pytest
import sources
import yaml
from cells import Cells
from code_graph import meaning_of
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from normal_form import parse
from stamps import DATA, STAMP, parts, stale, stamp, stamps

MODULES = {
    "": "",
    "arguments": """
def one_of(value, what, choices):
    problems = []
    if value not in choices:
        problems.append(f"unknown {what} {value}")
    if problems:
        raise ValueError("; ".join(problems))
    return value
""",
    "training": "from course_utils.training.loop import fit, history",
    "training.loop": '''
from course_utils.arguments import one_of

RATE = 0.1
UNUSED = 1


def fit(model, steps: int = 3, how="sgd"):
    """Train."""
    one_of(how, "way", ("sgd", "muon"))
    assert steps > 0, "no steps"
    total = 0
    names = "a", "b"

    def step(rate):
        nonlocal total
        total += sum(rate * each for each in model)
        return total

    for count in range(steps):
        step(RATE)  # at the full rate
    if total < 0:
        text = f"the total is {total}"
        raise FloatingPointError(text)
    return total, names


def history(model):
    return sorted(model, key=lambda each: -each)
''',
    "plots": "import numpy as np\n\n\ndef line(x, color='blue'):\n    return np.asarray(x), color\n",
    "lesson": """
from course_utils.reference import load_runs, table_of, verdict
from course_utils.training import fit


class Lesson:
    def __init__(self, run):
        self.mode, self.runs, self.studies = run, {}, {}

    def train(self, name, model):
        if self.mode == "reference":
            self.runs[name] = load_runs("folder")
            return model
        self.runs[name] = fit(model)
        return model

    def study(self, name, model):
        history = fit(model, self._steps())
        self.studies[name] = history
        return history

    def table(self):
        return list(self._rows)

    def verdicts(self):
        return [verdict(run) for run in self.runs]

    def _steps(self):
        return 1

    def unused(self):
        return "unused"

    @property
    def _rows(self):
        return self.runs.items()

    def __repr__(self):
        return "Lesson"
""",
    "reference": """
import yaml


def load_runs(folder):
    return folder


def read_bands(folder="here"):
    return folder


def read_published(folder="here"):
    return folder


def verdict(run):
    return read_bands(), run


def table_of(folder):
    return load_runs(folder), read_published()
""",
    "rooms": "class Net(Module):\n    def forward(self, x):\n        return x\n",
}
CELLS = {
    "imports": """
import torch
from course_utils import plots
from course_utils.lesson import Lesson
from course_utils.reference import table_of
from course_utils.rooms import Net
from course_utils.training import fit, history""",
    "data": "data = [1, 2, 3]\nprint(len(data))",
    "fitted": "total, names = fit(data)\nprint(total)",
    "sorted": "history(data)",
    "plot": "plots.line(data)",
    "pair": "def pair(x):\n    return x, x\n\n\npair(1)",
    "paired": "pair(2)",
    "net": "Net()",
    "lesson": "lesson = Lesson('train')\nprint('lesson')",
    "study": "lesson.study('a', data)",
    "other-study": "lesson.study('b', data)",
    "train": "model = lesson.train('a', data)\nprint('trained')",
    "verdicts": "lesson.verdicts()",
    "table": "lesson.table()",
    "model": "print(model)",
    "reference": "table_of('folder')",
    "reference-of-ours": "table_of('folder').query('network == ' + 'S8Net46k')",
    "silent": "silent = fit(data)",
}
FIT = {"fitted", "study", "other-study", "train", "verdicts", "table", "model"}
LESSON = {"lesson", "study", "other-study", "train", "verdicts", "table", "model"}


@pytest.fixture
def stamped(monkeypatch, tmp_path):
    """Stamps of the small notebook after changes: of modules as (name, old text, new text), of cells, of data."""
    folder = tmp_path / "data" / "reference"
    folder.mkdir(parents=True)
    for network in ("S8Net46k", "S9Net85k", "S80Net1k"):
        (folder / f"{network}-batch.json").write_text(json.dumps({"accuracy": 0.5, "loss": 1}))
    entries = [{"run": {"network": ["S8Net46k"]}, "band": 1}, {"run": {"network": "S9Net85k"}, "band": 7}]
    (folder / "bands.yaml").write_text(yaml.safe_dump(entries))
    published = [{"network": network, "published": 1} for network in ("S8Net46k", "S9Net85k")]
    (folder / "published.yaml").write_text(yaml.safe_dump(published))

    def of(*changes, **cells):
        modules = dict(MODULES)
        for name, old, new in changes:
            if name in modules:
                assert old in modules[name], (name, old)
                modules[name] = modules[name].replace(old, new)
            else:
                text = (folder / name).read_text()
                assert old in text, (name, old)
                (folder / name).write_text(text.replace(old, new, 1))
        read = {name: sources.read(source) for name, source in modules.items()}
        monkeypatch.setattr(sources, "package", lambda root: read)
        return stamps(book_of(**cells), "S8_normalization", tmp_path)

    return of


def book_of(**changed) -> nbformat.NotebookNode:
    cells = [
        new_code_cell(source, id=name, outputs=[] if name == "silent" else [new_output("stream", text="text")])
        for name, source in (CELLS | {name.replace("_", "-"): source for name, source in changed.items()}).items()
    ]
    return new_notebook(cells=[new_markdown_cell("# A session", id="title"), *cells])


LOOP = "training.loop"
CHANGES = [
    # What no output shows
    ("a local variable", [(LOOP, "count", "number")], set()),
    ("a local variable of a closure", [(LOOP, "total", "result"), (LOOP, "the result is", "the total is")], set()),
    ("a nested function", [(LOOP, "step(", "advance(")], set()),
    ("a variable of a comprehension", [(LOOP, "rate * each for each", "rate * x for x")], set()),
    ("an argument of a lambda", [(LOOP, "lambda each: -each", "lambda x: -x")], set()),
    ("a message", [(LOOP, "the total is", "the sum is")], set()),
    ("a message in pieces", [("arguments", "unknown {what} {value}", "{value} is no {what}, sorry")], set()),
    ("what a message mentions", [("arguments", '"; ".join(problems)', '" and ".join(sorted(problems))')], set()),
    ("the message of an assertion", [(LOOP, '"no steps"', 'f"{steps} steps are none"')], set()),
    (
        "a type hint",
        [(LOOP, "steps: int = 3", "steps: float = 3"), (LOOP, "history(model)", "history(model: list)")],
        set(),
    ),
    ("a type hint of a variable", [(LOOP, "    total = 0", "    total: int = 0")], set()),
    ("a docstring", [(LOOP, '"""Train."""', '"""Teach."""')], set()),
    ("a new docstring", [("plots", "'blue'):\n", "'blue'):\n    'A line.'\n")], set()),
    ("a comment and the layout", [(LOOP, "  # at the full rate", ""), (LOOP, "steps > 0", "(steps\n> 0)")], set()),
    ("a constant that nobody uses", [(LOOP, "UNUSED = 1", "UNUSED = 2")], set()),
    ("a method that nobody uses", [("lesson", '"unused"', '"not used"')], set()),
    ("an import under another name", [("plots", "numpy as np", "numpy"), ("plots", "np.", "numpy.")], set()),
    (
        "an import inside a function",
        [
            (LOOP, "from course_utils.arguments import one_of", ""),
            (LOOP, "    one_of(", "    from course_utils.arguments import one_of\n    one_of("),
        ],
        set(),
    ),
    (
        "an import of a library inside a function",
        [("plots", "import numpy as np", ""), ("plots", "    return", "    import numpy as np\n\n    return")],
        set(),
    ),
    ("a branch of reference mode", [("lesson", 'load_runs("folder")', 'load_runs("elsewhere")')], set()),
    # What outputs may show
    ("the default of an argument", [(LOOP, "steps: int = 3", "steps: int = 4")], FIT),
    ("the name of an argument", [(LOOP, "def step(rate)", "def step(speed)"), (LOOP, "rate *", "speed *")], FIT),
    ("a constant", [(LOOP, "RATE = 0.1", "RATE = 0.2")], FIT),
    ("a text that is returned", [(LOOP, '"a", "b"', '"a", "c"')], FIT),
    ("a condition before an error", [("arguments", "if value not in", "if value in")], FIT),
    ("the type of an error", [(LOOP, "FloatingPointError", "ValueError")], FIT),
    ("two variables become one", [(LOOP, "names", "total")], FIT),
    ("a helper under a module's name", [("plots", "'blue'", "'red'")], {"plot"}),
    ("a helper", [(LOOP, "-each", "each")], {"sorted"}),
    ("a method", [("lesson", "self._steps())", "self._steps() + 1)")], {"study", "other-study"}),
    ("a method that a method uses", [("lesson", "return 1", "return 2")], {"study", "other-study"}),
    ("a method that reads", [("lesson", "list(self._rows)", "dict(self._rows)")], {"table"}),
    ("a property", [("lesson", "self.runs.items()", "self.runs")], LESSON),
    ("a special method", [("lesson", '"Lesson"', '"lesson"')], LESSON),
    (
        "a method that writes",
        [("lesson", "] = fit(model)", "] = fit(model, 9)")],
        {"train", "verdicts", "table", "model"},
    ),
    ("a method that a library calls", [("rooms", "return x", "return 2 * x")], {"net"}),
    # Data
    ("a band", [("bands.yaml", "band: 1", "band: 2")], {"verdicts"}),
    ("a published figure", [("published.yaml", "published: 1", "published: 2")], {"reference", "reference-of-ours"}),
    ("a record", [("S8Net46k-batch.json", "0.5", "0.6")], {"reference", "reference-of-ours"}),
    ("a band of another session", [("bands.yaml", "band: 7", "band: 8")], set()),
    ("a record of a session whose name begins alike", [("S80Net1k-batch.json", "0.5", "0.6")], {"reference"}),
    ("a record of another session", [("S9Net85k-batch.json", "0.5", "0.6")], {"reference"}),
    ("the layout of data", [("S8Net46k-batch.json", ", ", ",\n"), ("bands.yaml", "- ", "# a comment\n- ")], set()),
]


@pytest.mark.parametrize(("changes", "expected"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_what_a_changed_helper_or_file_makes_stale(changes, expected, stamped):
    before = stamped()
    assert {name for name, value in stamped(*changes).items() if before[name] != value} == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"data": "data = [1, 2, 4]\nprint(len(data))"}, {"data", *FIT, "sorted", "plot"}),
        ({"data": "data = [1, 2, 3]\nprint(sum(data))"}, {"data"}),
        ({"data": "data = [1, 2, 3]\ndata.append(4)\nprint(len(data))"}, {"data", *FIT, "sorted", "plot"}),
        ({"sorted": "data[0] = history(data)"}, {"sorted", "plot", *FIT} - {"fitted"}),
        ({"pair": "def pair(x):\n    return [x, x]\n\n\npair(1)"}, {"pair", "paired"}),
        ({"pair": 'def pair(x):\n    """Twice."""\n    return (x,\n x)  # twice\n\n\npair(1)'}, set()),
        ({"plot": "plots.line([each for each in data])"}, {"plot"}),
        ({"study": "lesson.study('c', data)"}, {"study"}),
        ({"train": "model = lesson.train('b', data)\nprint('trained')"}, {"train", "verdicts", "table", "model"}),
        ({"imports": CELLS["imports"].replace("import fit", "import fit as f, fit")}, set()),
        ({"imports": CELLS["imports"].replace(".training import", ".training.loop import")}, set()),
        ({"silent": "silent = fit(data, 2)"}, set()),
        ({"paired": "'a text'"}, {"paired"}),
    ],
)
def test_what_a_changed_cell_makes_stale(cells, expected, stamped):
    before = stamped()
    assert {name for name, value in stamped(**cells).items() if before[name] != value} == expected


def test_a_definition_may_move_and_may_not_vanish(stamped, monkeypatch):
    before = stamped()
    function = MODULES[LOOP][MODULES[LOOP].index("def history") :]
    monkeypatch.setitem(MODULES, "training.past", function)
    monkeypatch.setitem(MODULES, LOOP, MODULES[LOOP].replace(function, ""))
    with pytest.raises(ValueError, match=r"course_utils.training.loop has no history"):
        stamped()
    again = "from course_utils.training.loop import fit\nfrom course_utils.training.past import history"
    monkeypatch.setitem(MODULES, "training", again)
    assert stamped() == before


def test_wording_counts_where_a_cell_shows_an_error(stamped):
    cell = {"paired": "try:\n    fit(data, -1)\nexcept AssertionError as error:\n    print(error)"}
    before = stamped(**cell)
    changed = stamped((LOOP, "no steps", "none"), **cell)
    assert {name for name, value in changed.items() if before[name] != value} == {"paired"}


def test_a_seed_counts_in_its_cell(stamped):
    cell, other = ({"pair": f"torch.manual_seed({seed})\nnoise = torch.randn(3)", "paired": "noise"} for seed in (0, 1))
    before, after = stamped(**cell), stamped(**other)
    assert {name for name in before if before[name] != after[name]} == {"pair", "paired"}


def test_a_text_that_a_cell_shows_counts(stamped):
    before, after = stamped(paired="'a text'"), stamped(paired="'another text'")
    assert {name for name in before if before[name] != after[name]} == {"paired"}


def test_what_changes_an_object_in_the_cell_that_makes_it_counts(stamped):
    """A loop that trains a network, say; but not a line that only prints."""
    loops = ["for step in range(1):\n    net(step)", "for step in range(2):\n    net(step)"]
    stamped_loops = [stamped(pair=f"net = Net()\n{loop}", paired="net(1)") for loop in loops]
    prints = [stamped(pair=f"net = Net()\nprint(net, {number})", paired="net(1)") for number in (1, 2)]
    for (before, after), expected in ((stamped_loops, {"pair", "paired"}), (prints, {"pair"})):
        assert {name for name in before if before[name] != after[name]} == expected


def test_stale_cells_are_named(stamped):
    stamped()
    book, session = book_of(), "S8_normalization"
    assert stale(book, session) == [name for name in CELLS if name != "silent"]  # never stamped
    stamp(book, session)
    assert stale(book, session) == [] and STAMP not in book.cells[-1].metadata
    next(cell for cell in book.cells if cell.id == "pair").source = "def pair(x):\n    return x"
    assert stale(book, session) == ["pair", "paired"]


@pytest.mark.parametrize(
    ("statement", "hit"),
    [
        ("x = 1", False),
        ("x = x + 1", True),
        ("x += 1", True),
        ("x[0] = 1", True),
        ("for x in range(3):\n    print(x)", False),
        ("for y in range(3):\n    x = y\n    print(x)", False),
        ("for y in range(3):\n    print(x)\n    x = y", True),
        ("for x in x:\n    print(x)", True),
        ("if x:\n    x = 1", True),
        ("if run:\n    x = 1", True),
        ("if run:\n    x = 1\nelse:\n    x = 2", False),
        ("with open(run) as x:\n    print(x)", False),
        ("def x():\n    return 1", False),
        ("y = [x for x in range(3)]", True),  # the outer x is still there
        ("y = (x := 2)", False),
        ("while (x := run()):\n    print(x)", False),
        ("try:\n    x = 1\nexcept OSError:\n    pass", True),
        ("import numpy as x", False),
    ],
)
def test_a_name_that_is_bound_anew(statement, hit, stamped):
    """`hit`: does the last cell depend on what the first one gave x?"""
    middle = new_code_cell(statement, id="middle")
    books = [
        new_notebook(cells=[new_code_cell(f"x = {value}", id="first"), middle, new_code_cell("print(x)", id="last")])
        for value in (1, 2)
    ]
    stamped()
    before, after = (parts(Cells(book), "last", "S0") for book in books)
    assert (before != after) == hit


def test_which_cells_need_trained_weights(stamped):
    stamped()
    cells = Cells(book_of())
    assert {name for name in CELLS if cells.trained(name)} == {"train", "model"}


def test_the_parts_are_named(stamped, tmp_path):
    stamped()
    found = parts(Cells(book_of()), "verdicts", "S8_normalization", tmp_path)
    assert {"its source", "cell 'lesson'", "cell 'train'", "Lesson.verdicts", "fit", "one_of"} <= set(found)
    assert "data/reference/bands.yaml" in found and "Lesson.unused" not in found and "cell 'study'" not in found


MESSAGE = "def f():\n m = ?\n if {}: raise E(m)\n return {}"


@pytest.mark.parametrize(
    ("source", "old", "new", "same"),
    [
        ("def f(x):\n ? = x\n return ?", "y", "z", True),
        ("def f(x):\n y = x\n return ?", "x", "y", False),
        ("def f(?):\n return ?", "y", "z", False),  # a caller may name an argument
        ("def f():\n global ?\n ? = 1", "y", "z", False),
        ("def f():\n return ?", "y", "z", False),  # a global name
        ("def f():\n ? = 1\n return lambda: ?", "y", "z", True),
        ("def f():\n y = 1\n return lambda ?: y", "y", "z", False),
        ("def f():\n y = 1\n def g():\n  nonlocal y\n  ?\n return g, y", "y = 2", "pass", False),
        ("[? for ? in x]", "x", "y", True),
        ("[x for x in ?]", "x", "y", False),
        ("def f():\n class ?: pass\n return ?()", "A", "B", False),  # printed by type(x)
        (MESSAGE.format("x", "1"), "'a'", "'b'", True),
        (MESSAGE.format("m == x", "1"), "'a'", "'b'", False),
        (MESSAGE.format("x", "m"), "'a'", "'b'", False),
        (MESSAGE.format("x", "1"), "g(1)", "g(2)", False),  # it may do something
        ("try: f()\nexcept E as a: raise F(?)", "a", "1", True),
        ("try: f()\nexcept ?: raise F", "E", "G", False),
        ("def f():\n try: g()\n except E as ?: h(?)", "a", "b", True),
        ("def f(x):\n match x:\n  case [?, *others]: return ?", "a", "b", True),
        ("x = 1 if run == 'train' else ?", "f()", "g()", True),
        ("x = ? if run == 'train' else 1", "f()", "g()", False),
        ("def f():\n if mode != 'train': ?\n return 1", "f()", "g()", True),
        ("print(f'{x:?}')", ".2f", ".3f", False),
        ("x = ?", "1", "True", False),
    ],
)
def test_meaning(source, old, new, same):
    digests = [meaning_of(parse(source.replace("?", text)), lambda name: None).digest for text in (old, new)]
    assert (digests[0] == digests[1]) == same


def test_what_a_piece_of_code_mentions():
    source = "def f(a):\n global g\n g = h(a.m, getattr(a, 'n'))\n raise E(unused)"
    meaning = meaning_of(parse(source), lambda name: ("place", "h") if name == "h" else None)
    assert {"g", "E"} <= meaning.names and not {"a", "h", "unused"} & meaning.names
    assert meaning.places == {("place", "h")} and meaning.attributes == {"m", "n"}


# The real package


def test_the_definitions_that_read_data_are_there():
    defined = {name for module in sources.package().values() for name in module.definitions}
    assert set(DATA) <= defined
    assert all(list(sources.ROOT.glob(pattern)) for pattern in DATA.values())


def in_package(kind) -> list:
    """Every function or class of the package with its digest, for a test that changes it."""
    found = []
    for module in sources.package().values():
        for name, source in module.definitions.items():
            if isinstance(node := parse(source)[0], kind):
                found.append(pytest.param(node, id=name))
    return found


def digest_of(node: ast.stmt) -> str:
    return meaning_of(parse(ast.unparse(node)), lambda name: None).digest


@pytest.mark.parametrize("node", in_package(ast.FunctionDef | ast.ClassDef))
def test_every_error_can_be_reworded(node):
    before, node = digest_of(node), copy.deepcopy(node)
    for each in ast.walk(node):
        message = each.exc.args if isinstance(each, ast.Raise) and isinstance(each.exc, ast.Call) else []
        message = [each.msg] if isinstance(each, ast.Assert) and each.msg else message
        for part in message:
            for text in ast.walk(part):
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    text.value = "other words"
    assert digest_of(node) == before


@pytest.mark.parametrize("node", in_package(ast.FunctionDef))
def test_every_local_variable_can_be_renamed(node):
    """Python's own table of symbols says which names are local."""
    before, node = digest_of(node), copy.deepcopy(node)
    tables, local, kept = [symtable.symtable(ast.unparse(node), "f", "exec").get_children()[0]], set(), set()
    while tables:
        table = tables.pop()
        for symbol in table.get_symbols():
            own = symbol.is_local() and not symbol.is_parameter() and not symbol.is_imported()
            (local if own and table.get_type() == "function" else kept if not symbol.is_free() else set()).add(
                symbol.get_name()
            )
        tables += table.get_children()
    local -= kept
    for each in ast.walk(node):
        if isinstance(each, ast.Nonlocal):
            each.names = [f"{name}_" if name in local else name for name in each.names]
        for attribute in ("id", "name") if each is not node and not isinstance(each, ast.alias) else ():
            if getattr(each, attribute, None) in local:
                setattr(each, attribute, getattr(each, attribute) + "_")
    assert digest_of(node) == before


REAL = {
    "imports": """
from course_utils.analysis import plotting
from course_utils.data import load_images
from course_utils.networks import make_network
from course_utils.runs.lesson import Lesson
from course_utils.runs.reference import reference_table, study_table""",
    "lesson": "lesson = Lesson('S8_normalization', ['S8Net46k'])",
    "images": "load_images('shapes')",
    "network": "make_network('S8Net46k')",
    "plot": "plotting.plot_confusion(1)",
    "train": "model = lesson.train('a', 'S8Net46k', 1, 2)",
    "bands": "lesson.print_bands()",
    "table": "reference_table().query(\"network.str.startswith('S8')\")",
    "all": "reference_table()",
    "study": "study_table().query(\"network == 'S8Net46k'\")",
}


def real_stamps(session: str = "S8_normalization") -> dict[str, str]:
    outputs = [new_output("stream", text="text")]
    return stamps(new_notebook(cells=[new_code_cell(REAL[name], id=name, outputs=outputs) for name in REAL]), session)


@pytest.fixture(scope="module")
def real_before() -> dict[str, str]:
    """The stamps of the package as it stands."""
    return real_stamps()


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("training.loop", "first_bad", "worst", set()),
        ("training.loop", "the loss was not finite", "the loss is not finite", set()),
        ("networks.layers", "The normalization layer for", "A normalization layer for", set()),
        ("networks.layers", "num_groups: int = 4,", "num_groups: int = 8,", {"network", "train", "bands", "lesson"}),
        ("arguments", "expected one of", "choose one of", set()),
        ("analysis.plotting", "% of the true class", "% of each class", {"plot"}),
        ("runs.reference", "def reference_table(folder: Path", "def reference_table(folder: str", set()),
        ("runs.reference", '"std"', '"var"', {"table", "all", "study"}),
    ],
)
def test_what_a_change_of_the_package_makes_stale(module, old, new, expected, monkeypatch, real_before):
    known = sources.package()
    file = sources.ROOT / sources.PACKAGE / f"{module.replace('.', '/')}.py"
    source = file.read_text(encoding="utf-8")
    assert old in source
    changed = known | {module: sources.read(source.replace(old, new))}
    monkeypatch.setattr(sources, "package", lambda root: changed)
    assert {name for name, value in real_stamps().items() if real_before[name] != value} == expected


def test_load_images_may_move(monkeypatch, real_before):
    known = sources.package()
    source = (sources.ROOT / sources.PACKAGE / "data" / "loader.py").read_text(encoding="utf-8")
    function = known["data.loader"].definitions["load_images"]
    imports = [ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    others = ", ".join(set(known["data.loader"].definitions) - {"load_images"})
    moved = "\n".join([*imports, f"from course_utils.data.loader import {others}", function])
    rest = source.replace(function, "from course_utils.data.moved import load_images")
    changed = known | {"data.loader": sources.read(rest), "data.moved": sources.read(moved)}
    assert "load_images" not in changed["data.loader"].definitions
    monkeypatch.setattr(sources, "package", lambda root: changed)
    assert real_stamps() == real_before


@pytest.mark.parametrize(
    ("file", "old", "expected"),
    [
        ("bands.yaml", "0.8", {"bands"}),
        ("bands.yaml", "three runs with batch norm", {"bands"}),  # the reason, which is printed too
        ("bands.yaml", "fifteen reference runs", set()),  # of which the committed outputs show none
        ("published.yaml", "0.8", {"table", "all"}),
        ("S8Net46k-batch-20ep-seed0-4c094af2.json", "0.8", {"table", "all"}),
        ("S9Net180k-batch-50ep-seed0-32f7e4d2.json", "0.8", {"all"}),
        ("studies/S8Net46k.json", "0.8", {"study"}),
        ("studies/S9Net180k-batch-20ep-seed0-a2257bf1.json", "0.8", set()),
    ],
)
def test_what_a_change_of_committed_data_makes_stale(file, old, expected, monkeypatch, tmp_path):
    folder = tmp_path / "data" / "reference"
    (folder / "studies").mkdir(parents=True)
    shutil.copytree(sources.ROOT / "data" / "reference" / "sessions", folder / "sessions")
    for path in (sources.ROOT / "data" / "reference").glob("*.[jy]*"):
        shutil.copy(path, folder)
    for path in (sources.ROOT / "data" / "reference" / "studies").glob("*.json"):
        shutil.copy(path, folder / "studies")
    shutil.copy(folder / "S8Net46k-batch-20ep-seed0-4c094af2.json", folder / "studies" / "S8Net46k.json")
    known = sources.package()
    monkeypatch.setattr(sources, "package", lambda root: known)
    cells = Cells(new_notebook(cells=[new_code_cell(REAL[name], id=name) for name in REAL]))

    def all_parts():
        return {name: parts(cells, name, "S8_normalization", tmp_path) for name in REAL}

    before, text = all_parts(), (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, "0.7"), encoding="utf-8")
    assert {name for name, value in all_parts().items() if before[name] != value} == expected
