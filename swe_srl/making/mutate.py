"""Source of a module → Mutations: small textual edits at places found in the syntax tree; all other bytes stay."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Edit(NamedTuple):
    """Bytes `start:end` of a file become `text`."""

    start: int
    end: int
    text: str


class Mutation(NamedTuple):
    """One bug that could be planted."""

    path: str
    """File, relative to the repository."""
    function: str
    """Name of the top-level function around the bug."""
    line: int
    kind: str
    edit: Edit


class Source:
    """A module's bytes, with the way from syntax tree positions (line, UTF-8 column) to offsets."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._starts = [0]
        for line in data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def start(self, node: ast.expr | ast.stmt) -> int:
        """Offset of a node's first byte."""
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        """Offset after a node's last byte."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def line_end(self, node: ast.expr | ast.stmt) -> int:
        """Offset after the last line of a node."""
        assert node.end_lineno is not None
        return self._starts[node.end_lineno]

    def text(self, node: ast.expr | ast.stmt) -> str:
        """A node as it is written."""
        return self.data[self.start(node) : self.end(node)].decode()

    def replace(self, node: ast.expr | ast.stmt, text: str) -> Edit:
        """Write `text` in the place of a node."""
        return Edit(self.start(node), self.end(node), text)

    def between(self, left: ast.expr, right: ast.expr, pattern: str, text: str) -> Iterator[Edit]:
        """Replace the one match of `pattern` between two nodes; nothing where a comment stands there."""
        start, end = self.end(left), self.start(right)
        gap = self.data[start:end].decode()
        found = re.findall(pattern, gap)
        if len(found) == 1 and "#" not in gap:
            match = re.search(pattern, gap)
            assert match is not None
            yield Edit(start + len(gap[: match.start()].encode()), start + len(gap[: match.end()].encode()), text)

    def whole_lines(self, node: ast.stmt) -> tuple[int, int] | None:
        """Offsets of the lines that a statement fills alone; None where it shares them."""
        assert node.end_lineno is not None
        start, end = self._starts[node.lineno - 1], self._starts[node.end_lineno]
        alone = (
            not self.data[start : self.start(node)].strip()
            and not self.data[self.end(node) : end].split(b"#")[0].strip()
        )
        return (start, end) if alone else None


COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: (r"<", "<="), ast.LtE: (r"<=", "<"), ast.Gt: (r">", ">="), ast.GtE: (r">=", ">"), ast.Eq: (r"==", "!="), ast.NotEq: (r"!=", "=="),
    ast.Is: (r"\bis\b", "is not"), ast.IsNot: (r"\bis\s+not\b", "is"), ast.In: (r"\bin\b", "not in"), ast.NotIn: (r"\bnot\s+in\b", "in"),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: (r"\+", "-"), ast.Sub: (r"-", "+"), ast.Mult: (r"\*", "+"), ast.Div: (r"/", "*"), ast.FloorDiv: (r"//", "/"),
    ast.Mod: (r"%", "//"), ast.Pow: (r"\*\*", "*"),
}  # fmt: skip
TWINS = {
    "any": "all", "min": "max", "append": "appendleft", "lstrip": "rstrip", "startswith": "endswith", "lower": "upper",
    "takewhile": "dropwhile", "filter": "filterfalse", "split": "rsplit", "find": "rfind", "isupper": "islower",
    "keys": "values", "ljust": "rjust", "partition": "rpartition", "floor": "ceil",
}  # fmt: skip
TWIN_OF = TWINS | {right: left for left, right in TWINS.items()}


def compare(node: ast.AST, source: Source) -> Iterator[Edit]:
    """`<` becomes `<=`, `is` becomes `is not`, …"""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            yield from source.between(left, right, *COMPARE[type(operator)])


def boolean(node: ast.AST, source: Source) -> Iterator[Edit]:
    """`and` becomes `or`, and the other way round."""
    if isinstance(node, ast.BoolOp):
        now, then = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        yield from source.between(node.values[0], node.values[1], rf"\b{now}\b", then)


def constant(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A whole number is one off."""
    if isinstance(node, ast.Constant) and type(node.value) is int and source.text(node).isdigit():
        yield source.replace(node, str(node.value + 1))
        if node.value > 0:
            yield source.replace(node, str(node.value - 1))


def condition(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A condition is negated."""
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        if isinstance(test, ast.Name | ast.Call | ast.Attribute | ast.Subscript):
            yield source.replace(test, f"not {source.text(test)}")
        elif isinstance(test, ast.BoolOp) and "\n" not in source.text(test):
            yield source.replace(test, f"not ({source.text(test)})")


def negation(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A `not` is lost."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield source.replace(node, source.text(node.operand))


def arguments(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Two neighbouring arguments of a call change places."""
    if isinstance(node, ast.Call):
        for left, right in zip(node.args, node.args[1:], strict=False):
            yield from _swap(left, right, source)


def statement(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A statement is lost: a call, an update, or an assignment to a name that has a value already."""
    for block in _blocks(node):
        for found in block:
            lines = source.whole_lines(found)
            docstring = isinstance(found, ast.Expr) and isinstance(found.value, ast.Constant)
            if lines and not docstring and isinstance(found, ast.Expr | ast.AugAssign | ast.Continue | ast.Break):
                yield source.replace(found, "pass") if len(block) == 1 else Edit(*lines, "")


def returned(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Something else is returned: the other truth value, nothing, the input of a call, a tuple in the wrong order."""
    if not isinstance(node, ast.Return) or node.value is None:
        return
    value = node.value
    if isinstance(value, ast.Constant) and isinstance(value.value, bool):
        yield source.replace(value, str(not value.value))
    elif isinstance(value, ast.Tuple) and len(value.elts) == 2:
        yield from _swap(value.elts[0], value.elts[1], source)
    elif (
        isinstance(value, ast.Call)
        and len(value.args) == 1
        and not value.keywords
        and not isinstance(value.args[0], ast.Starred | ast.GeneratorExp)
    ):
        yield source.replace(value, source.text(value.args[0]))
    elif isinstance(value, ast.Name):
        yield source.replace(value, "None")


def arithmetic(node: ast.AST, source: Source) -> Iterator[Edit]:
    """`+` becomes `-`, `//` becomes `/`, …"""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield from source.between(node.left, node.right, *ARITHMETIC[type(node.op)])
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        now, then = ARITHMETIC[type(node.op)]
        yield from source.between(node.target, node.value, now, then)


def index(node: ast.AST, source: Source) -> Iterator[Edit]:
    """The other end of a sequence, or the other side of a slice."""
    if not isinstance(node, ast.Subscript):
        return
    where = node.slice
    if isinstance(where, ast.Slice) and where.step is None:
        if where.lower is not None and where.upper is None:
            yield source.replace(where, f":{source.text(where.lower)}")
        elif where.upper is not None and where.lower is None:
            yield source.replace(where, f"{source.text(where.upper)}:")
    elif source.text(where) == "0":
        yield source.replace(where, "-1")
    elif source.text(where) == "-1":
        yield source.replace(where, "0")


def branches(node: ast.AST, source: Source) -> Iterator[Edit]:
    """What happens in one case happens in the other."""
    if isinstance(node, ast.IfExp):
        body, test, other = source.text(node.body), source.text(node.test), source.text(node.orelse)
        if source.text(node) == f"{body} if {test} else {other}" and body != other:
            yield source.replace(node, f"{other} if {test} else {body}")
    elif isinstance(node, ast.If) and len(node.body) == len(node.orelse) == 1:
        left, right = node.body[0], node.orelse[0]
        simple = ast.Return | ast.Assign | ast.Expr | ast.AugAssign
        if isinstance(left, simple) and isinstance(right, simple):
            yield from _swap(left, right, source)


def twin(node: ast.AST, source: Source) -> Iterator[Edit]:
    """A function's twin is called: `any` for `all`, `rstrip` for `lstrip`, …"""
    if not isinstance(node, ast.Call):
        return
    called = node.func
    if isinstance(called, ast.Name) and called.id in (
        "any",
        "all",
        "min",
        "max",
        "takewhile",
        "dropwhile",
        "floor",
        "ceil",
    ):
        yield source.replace(called, TWIN_OF[called.id])
    elif (
        isinstance(called, ast.Attribute) and called.attr in TWIN_OF and called.attr not in ("append", "find", "rfind")
    ):
        end = source.end(called)
        yield Edit(end - len(called.attr), end, TWIN_OF[called.attr])


OPERATORS: dict[str, Callable[[ast.AST, Source], Iterator[Edit]]] = {
    "compare": compare,
    "boolean": boolean,
    "constant": constant,
    "condition": condition,
    "negation": negation,
    "arguments": arguments,
    "statement": statement,
    "return": returned,
    "arithmetic": arithmetic,
    "index": index,
    "branches": branches,
    "twin": twin,
}
KINDS: tuple[str, ...] = tuple(OPERATORS)


def mutations(path: str, data: bytes, *, max_function_lines: int) -> Iterator[Mutation]:
    """Every mutation of the short top-level functions of a module, in the order in which they stand there.

    What does not parse after the edit, or parses to the same tree, is left out. Raises SyntaxError when `data` is no Python.
    """
    source = Source(data)
    tree = ast.parse(data)
    for function in tree.body:
        if not isinstance(function, Function) or num_code_lines(function) > max_function_lines:
            continue
        start, end = source.start(function), source.end(function)
        alone = data[start:end]
        before = _dump(alone)
        for node in ast.walk(function):
            for kind, operator in OPERATORS.items():
                for edit in operator(node, source):
                    if edit.start < start or edit.end > source.line_end(function):
                        continue  # a decorator, which stands before the function
                    after = _dump(apply(alone, Edit(edit.start - start, edit.end - start, edit.text)))
                    if after is not None and after != before:
                        yield Mutation(path, function.name, data.count(b"\n", 0, edit.start) + 1, kind, edit)


def apply(data: bytes, edit: Edit) -> bytes:
    """`data` with the edit in it."""
    return data[: edit.start] + edit.text.encode() + data[edit.end :]


def num_code_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def _dump(function: bytes) -> str | None:
    try:
        return ast.dump(ast.parse(function))
    except SyntaxError:
        return None


def _swap(left: ast.expr | ast.stmt, right: ast.expr | ast.stmt, source: Source) -> Iterator[Edit]:
    one, other = source.text(left), source.text(right)
    if one != other and not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
        gap = source.data[source.end(left) : source.start(right)].decode()
        yield Edit(source.start(left), source.end(right), f"{other}{gap}{one}")


def _blocks(node: ast.AST) -> list[list[ast.stmt]]:
    blocks = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
    return [block for block in blocks if isinstance(block, list) and block]
