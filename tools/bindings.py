"""Which names a piece of code gives a value to, and which of them serve nothing but messages of errors."""

import ast
from collections.abc import Sequence

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSION = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def bound_in(statements: Sequence[ast.AST]) -> set[str]:
    """The names to which statements give a value, not those inside functions, classes and comprehensions."""
    found, pending, declared = set(), list(statements), set()
    while pending:
        node = pending.pop()
        if isinstance(node, FUNCTION | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, COMPREHENSION):
            found |= {walrus.target.id for walrus in ast.walk(node) if isinstance(walrus, ast.NamedExpr)}
        elif isinstance(node, ast.Global | ast.Nonlocal):
            declared |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
        if not isinstance(node, FUNCTION | ast.ClassDef | ast.Lambda | COMPREHENSION):
            pending += ast.iter_child_nodes(node)
    return found - declared


def reads_and_binds(statements: list[ast.stmt], bound: frozenset = frozenset()) -> tuple[set[str], frozenset]:
    """The names that statements read before they bind them, and those that they bind for sure.

    Loops are taken to run at least once.
    """
    reads: set[str] = set()

    def look(node: ast.AST | None) -> None:
        nodes = list(ast.walk(node)) if node else []
        changed = {each.target for each in nodes if isinstance(each, ast.AugAssign)}
        found = {n.id for n in nodes if isinstance(n, ast.Name) and (isinstance(n.ctx, ast.Load) or n in changed)}
        reads.update(found - bound)

    def inside(block: list[ast.stmt], known: frozenset) -> frozenset:
        found, known = reads_and_binds(block, known)
        reads.update(found)
        return known

    for node in statements:
        if isinstance(node, ast.For | ast.AsyncFor):
            look(node.iter)
            bound = inside(node.orelse, inside(node.body, bound | bound_in([node.target])))
        elif isinstance(node, ast.While | ast.If):
            look(node.test)
            after = inside(node.body, bound | bound_in([node.test])), inside(node.orelse, bound | bound_in([node.test]))
            bound = after[0] if isinstance(node, ast.While) else after[0] & after[1]
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                look(item)
            bound = inside(node.body, bound | bound_in(node.items))
        elif hasattr(node, "body"):  # of a function, a class, an attempt: any of its names may be read first
            look(node)
            bound |= {node.name} if hasattr(node, "name") else frozenset()
        else:
            look(node)
            bound |= bound_in([node])
    return reads, bound


def base_name(node: ast.AST) -> str | None:
    """The variable in `x`, `x.a`, `x[0].a` and the like."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def dotted(node: ast.AST) -> str | None:
    """The text of `x.a.b`; None for what is not made of names and dots alone."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def extended_by(statement: ast.AST) -> str | None:
    """The one variable that a statement assigns to, or extends as in `problems.append(...)`."""
    if isinstance(statement, ast.Assign):
        names = {base_name(target) for target in statement.targets}
        return names.pop() if len(names) == 1 else None
    if isinstance(statement, ast.AugAssign | ast.AnnAssign):
        return base_name(statement.target)
    call = statement.value if isinstance(statement, ast.Expr) else None
    return base_name(call.func) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else None


def message_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The local names that serve nothing but the messages of errors, directly or by way of one another."""
    others, goes_into = set(), {}

    def look(node, into=None):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            look(node.exc.func)
        elif isinstance(node, ast.Assert):
            look(node.test)
        elif isinstance(node, ast.If | ast.While) and truth(node.test):
            for child in node.body + node.orelse:
                look(child)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if into is None:
                others.add(node.id)
            else:
                goes_into.setdefault(node.id, set()).add(into)
        else:
            for child in ast.iter_child_nodes(node):
                look(child, into or extended_by(node))

    def truth(test) -> bool:  # if problems: and if not problems:
        return isinstance(test.operand if isinstance(test, ast.UnaryOp) else test, ast.Name)

    look(function)
    arguments = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    found = bound_in(function.body) - others - arguments
    while wrong := {name for name in found if goes_into.get(name, set()) - found}:
        found -= wrong
    return found
