"""Which settings the code reads, each with the section it is read from, found without running anything.

Owns: following a section through annotations and assignments, as far as the code is typed: a parameter or field that is
annotated with a section, what is assigned from one, what a function that returns one gives, what is looped over.
Does not know: which settings there are to be read.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from jupiter.config import ClusterConfig, DomainConfig

__all__ = ["Setting", "settings_of", "settings_read"]

Setting = tuple[str, str]
"""(name of the section's class, name of the setting)"""


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for inner in _inner(model).values():
        yield from _models(inner)


def _inner(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the settings of a section that are sections themselves, or tuples of some."""
    found = {}
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found[name] = candidate
    return found


MODELS = {model.__name__: model for root in (ClusterConfig, DomainConfig) for model in _models(root)}


def settings_of(*roots: type[BaseModel]) -> set[Setting]:
    """Return every setting below the roots that is no section."""
    return {
        (model.__name__, name)
        for root in roots
        for model in _models(root)
        for name in model.model_fields
        if name not in _inner(model)
    }


def settings_read(files: Iterable[Path]) -> set[Setting]:
    """Return every setting that is read somewhere in the files."""
    trees = [ast.parse(path.read_text()) for path in files]
    typed: defaultdict[str, set[str]] = defaultdict(set)
    returned: defaultdict[str, set[str]] = defaultdict(set)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    typed[part.target.id] |= _named(part.annotation)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
            typed[node.target.attr] |= _named(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns:
            returned[node.name] |= _named(node.returns)
    read: set[Setting] = set()
    for tree in trees:
        reader = _Reader(typed=typed, returned=returned)
        reader.visit(tree)
        reader.visit(tree)  # once more, with what the first time was assigned to attributes
        read |= reader.read
    return read


def _named(annotation: ast.expr | None) -> set[str]:
    """Return the sections that an annotation names, alone or as a part (`Section | None`, `tuple[TaskMix, ...]`)."""
    if annotation is None:
        return set()
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return {name for name in names if name in MODELS}


class _Reader(ast.NodeVisitor):
    """Walks through functions with what their names are known to be."""

    def __init__(self, *, typed: Mapping[str, set[str]], returned: Mapping[str, set[str]]) -> None:
        self.read: set[Setting] = set()
        self._typed, self._returned = typed, returned
        self._assigned: defaultdict[str, set[str]] = defaultdict(set)
        """What this file assigns to attributes, by their names."""
        self._scopes: list[dict[str, set[str]]] = [{}]

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            self._scopes.append({argument.arg: _named(argument.annotation) for argument in arguments})
            self.generic_visit(node)
            self._scopes.pop()
            return
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.For):
            self._bind(node.target, node.iter)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            for generator in node.generators:
                self._bind(generator.target, generator.iter)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            self.read |= {(section, node.attr) for section in self._sections(node.value)}
        self.generic_visit(node)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = self._sections(value)
        elif isinstance(target, ast.Attribute):
            self._assigned[target.attr] |= self._sections(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for part, of_part in zip(target.elts, value.elts, strict=False):
                self._bind(part, of_part)

    def _sections(self, node: ast.expr) -> set[str]:
        """Return the sections that an expression may be, or be made of; none where it is something else."""
        if isinstance(node, ast.Name):
            return next((scope[node.id] for scope in reversed(self._scopes) if node.id in scope), set())
        if isinstance(node, ast.Attribute):
            inner = {
                _inner(MODELS[section])[node.attr].__name__
                for section in self._sections(node.value)
                if node.attr in _inner(MODELS[section])
            }
            name = node.attr
            return inner or self._assigned[name] | self._typed.get(name, set()) | self._returned.get(name, set())
        if isinstance(node, ast.Call):
            return self._made_by(node)
        if isinstance(node, ast.Await):
            return self._sections(node.value)
        if isinstance(node, ast.IfExp):
            return self._sections(node.body) | self._sections(node.orelse)
        if isinstance(node, ast.BoolOp):
            return {section for value in node.values for section in self._sections(value)}
        return set()

    def _made_by(self, call: ast.Call) -> set[str]:
        called = call.func
        if isinstance(called, ast.Name):
            return {called.id} if called.id in MODELS else set(self._returned.get(called.id, ()))
        if isinstance(called, ast.Attribute):
            copied = self._sections(called.value) if called.attr == "model_copy" else set()
            return copied or set(self._returned.get(called.attr, ()))
        return set()
