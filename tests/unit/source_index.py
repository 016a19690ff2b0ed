"""SourceIndex: what the Python files of this repository define, read and not imported."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class SourceIndex:
    """Modules, classes, functions and their members, and which function calls what."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.modules: dict[str, set[str]] = defaultdict(set)
        """What modules of a name define; a name is `kafka.repairs` as well as `repairs` and `connector.kafka.repairs`."""
        self.members: dict[str, set[str]] = defaultdict(set)
        """What classes of a name define, and those that they inherit from in this repository."""
        self.calls: dict[str, set[str]] = defaultdict(set)
        """The names of what a function calls or hands on, by its own name and by that with its class or module."""
        bases: dict[str, set[str]] = defaultdict(set)
        for folder in folders:
            for file in sorted((root / folder).rglob("*.py")):
                self._read(file.relative_to(root), ast.parse(file.read_text(encoding="utf-8")), bases)
        for name in list(self.members):
            for above in _all_bases(name, bases):
                self.members[name] |= self.members.get(above, set())

    def defines(self, name: str) -> bool:
        """Whether this is a module, a class, a function or a constant, or a member of one, with dots between."""
        name = name.removesuffix("()")
        above, _, last = name.rpartition(".")
        if not above:
            return name in self.members or name in self.modules or any(name in inner for inner in self._defined())
        return name in self.modules or last in self.modules.get(above, ()) or last in self.members.get(above, ())

    def _defined(self) -> Iterator[set[str]]:
        yield from self.modules.values()
        for members in self.members.values():
            yield members & self.calls.keys()

    def _read(self, path: Path, tree: ast.Module, bases: dict[str, set[str]]) -> None:
        parts = path.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names = [".".join(parts[start:]) for start in range(len(parts))]
        defined = {name for node in tree.body for name in _names(node)}
        for name in names:
            self.modules[name] |= defined
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] |= {ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases}
                self.members[node.name] |= set(_members(node))
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        self._note_calls(inner, [inner.name, f"{node.name}.{inner.name}"])
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._note_calls(node, [node.name, *(f"{name}.{node.name}" for name in names)])

    def _note_calls(self, function: ast.FunctionDef | ast.AsyncFunctionDef, names: Iterable[str]) -> None:
        used = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        used |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        for name in names:
            self.calls[name] |= used


def _names(node: ast.AST) -> Iterator[str]:
    """What a statement of a module or a class gives a name to."""
    if isinstance(node, Definition):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        for inner in node.body:
            yield from _names(inner)


def _members(of: ast.ClassDef) -> Iterator[str]:
    for statement in of.body:
        yield from _names(statement)
    for node in ast.walk(of):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def _all_bases(name: str, bases: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = set(bases.get(name, ()))
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left |= bases.get(one, set())
    return found
