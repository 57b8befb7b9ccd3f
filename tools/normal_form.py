"""What a piece of code means, as nested lists, without what no output shows.

Left out are layout, comments, docstrings, type hints, import lines, messages of errors, the names of local variables,
and the branches of other modes than `run = "train"`, in which the committed notebooks are executed.
"""

import ast
from collections.abc import Callable
from contextlib import contextmanager
from itertools import chain

from bindings import COMPREHENSION, bound_in, dotted, extended_by, message_names

IMPORT = ast.Import | ast.ImportFrom
SKIPPED = {"ctx", "kind", "type_comment", "annotation", "returns"}
MODES = {"train", "reference", "recorded"}


def taken(test: ast.AST) -> bool | None:
    """What `run == "reference"` and the like are in a full run, whose mode is "train"; None for other tests."""
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq | ast.NotEq):
        left, right = test.left, test.comparators[0]
        name = left.attr if isinstance(left, ast.Attribute) else getattr(left, "id", None)
        if name in ("run", "mode") and isinstance(right, ast.Constant) and right.value in MODES:
            return (right.value == "train") == isinstance(test.ops[0], ast.Eq)
    return None


class OfAFullRun(ast.NodeTransformer):
    """Leaves out the branches of other modes."""

    def visit_If(self, node):
        self.generic_visit(node)
        branch = taken(node.test)
        return node if branch is None else node.body if branch else node.orelse

    def visit_IfExp(self, node):
        self.generic_visit(node)
        branch = taken(node.test)
        return node if branch is None else node.body if branch else node.orelse


def parse(source: str) -> list[ast.stmt]:
    """The statements of a source, as a full run executes them."""
    return OfAFullRun().visit(ast.parse(source)).body


class Reader:
    """Reads code, and collects what it mentions on the way.

    `find` says what a name that is not local stands for: a dotted text ("torch.nn"), a place in the package, or None.
    `wording`: count the messages of errors too.
    """

    def __init__(self, find: Callable, wording: bool = False):
        self.find, self.wording = find, wording
        self.places, self.names, self.attributes = set(), set(), set()
        self.scopes, self.locals, self.messages, self.quiet = [], 0, set(), False

    def form(self, node):
        """A node, or a list of nodes, as nested lists of text."""
        if isinstance(node, list):
            return self.block(node) if node and isinstance(node[0], ast.stmt) else [self.form(item) for item in node]
        if not isinstance(node, ast.AST):
            return repr(node)
        kind = "Comprehension" if isinstance(node, COMPREHENSION) else type(node).__name__
        return getattr(self, f"_{kind}", self.fields)(node)

    def fields(self, node, **known):
        """A node of which nothing is special; fields that are already read are given."""
        result: list = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name in known:
                result.append([name, known[name]])
            elif name in ("name", "rest") and isinstance(value, str):  # of an exception, of a pattern
                result.append([name, self.form(ast.Name(value))])
            elif name not in SKIPPED and value is not None and value != []:
                result.append([name, self.form(value)])
        return result

    def block(self, statements):
        """The forms of statements, without those that do nothing."""
        result = []
        for node in statements:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if text or isinstance(node, IMPORT | ast.Pass | ast.Nonlocal):
                continue
            if isinstance(node, ast.AnnAssign) and not node.value and not self.in_class():
                continue
            self.quiet = extended_by(node) in self.messages and not self.wording
            result.append(self.form(node))
            self.quiet = False
        return result

    @contextmanager
    def scope(self, names, is_class=False):
        self.scopes.append((names, is_class))
        yield
        self.scopes.pop()

    def in_class(self) -> bool:
        return bool(self.scopes) and self.scopes[-1][1]

    def label(self, name: str):
        """How a local name is written, None for another: variables are numbered, arguments keep theirs."""
        for names, is_class in reversed(self.scopes):
            if name in names and (not is_class or names is self.scopes[-1][0]):
                if names[name] is None:
                    self.locals += 1
                    names[name] = f"local {self.locals}"
                return names[name]
        return None

    def _Name(self, node):
        if (label := self.label(node.id)) is not None:
            return ["Name", label]
        found = self.find(node.id)
        if isinstance(found, tuple):
            self.places.add(found)
            return ["Name", found[1] or found[0].split(".")[-1]]
        if found is None:
            self.names.add(node.id)
        return ["Name", found or node.id]

    def _Attribute(self, node):
        path = dotted(node)
        place = self.find(path) if path and not self.label(path.split(".")[0]) else None
        if place:  # plotting.plot_images, nn.functional.relu
            self.places |= {place} if isinstance(place, tuple) else set()
            return ["Name", place[1] if isinstance(place, tuple) else place]
        self.attributes.add(node.attr)
        return self.fields(node)

    def _Call(self, node):
        if getattr(node.func, "id", None) in ("getattr", "hasattr", "setattr") and len(node.args) > 1:
            self.attributes.add(getattr(node.args[1], "value", ""))
        return self.fields(node)

    def _Constant(self, node):
        return ["Text"] if self.quiet and isinstance(node.value, str) else ["Constant", repr(node.value)]

    def _JoinedStr(self, node):
        return ["Text"] if self.quiet else self.fields(node)

    def _AnnAssign(self, node):
        if self.in_class():  # a field of a dataclass
            return self.fields(node)
        return self.fields(ast.Assign([node.target], node.value))

    def _Raise(self, node):
        if self.wording or node.exc is None:
            return self.fields(node)
        return ["Raise", self.form(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)]

    def _Assert(self, node):
        return self.fields(node) if self.wording else ["Assert", self.form(node.test)]

    def _FunctionDef(self, node):
        # Decorators and defaults belong to what is outside.
        head = [self.label(node.name) or node.name, self.form(node.decorator_list), self.form(node.args)]
        arguments = {item.arg: item.arg for item in ast.walk(node.args) if isinstance(item, ast.arg)}
        before, self.messages = self.messages, self.messages | message_names(node)
        with self.scope(dict.fromkeys(bound_in(node.body)) | arguments):
            body = self.block(node.body)
        self.messages = before
        return [type(node).__name__, *head, body]

    _AsyncFunctionDef = _FunctionDef

    def _Lambda(self, node):
        arguments = node.args
        outside = [self.form(arguments.defaults), self.form(arguments.kw_defaults)]
        names = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
        with self.scope({item.arg: None for item in names if item}):
            labels = [item and self.label(item.arg) for item in names]
            return ["Lambda", *outside, labels, self.form(node.body)]

    def _ClassDef(self, node):
        head = [node.name, self.form(node.decorator_list), self.form(node.bases), self.form(node.keywords)]
        with self.scope({name: name for name in bound_in(node.body)}, is_class=True):
            return ["ClassDef", *head, self.block(node.body)]

    def _Comprehension(self, node):
        first, *others = node.generators
        source = self.form(first.iter)  # evaluated outside
        targets = chain.from_iterable(ast.walk(each.target) for each in node.generators)
        with self.scope({item.id: None for item in targets if isinstance(item, ast.Name)}):
            generators = [self.fields(first, iter=source), *map(self.form, others)]
            return self.fields(node, generators=generators)
