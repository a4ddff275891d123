"""Reads the signature of a `module:callable` from the project's source text, without imports."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.blueprint.sources.annotation_schemas import schema_of
from flujo.blueprint.sources.source_files import SourceRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.schemas.algebra import Schema
    from flujo.blueprint.sources.source_files import Source

FILLED_IN = frozenset({"context", "resources", "idempotency_key"})
"""Parameters that the engine fills in, whatever a step or a model passes."""

HANDED_IN = FILLED_IN | {"data"}
"""Parameters that the engine passes by name."""


@dataclass(frozen=True)
class Signature:
    """The parameters of one callable, as written in the source."""

    parameters: tuple[str, ...]
    """All parameters that can be passed by name."""
    required: tuple[str, ...]
    """The parameters without a default."""
    open_ended: bool
    """Whether it accepts other names (`**kwargs`)."""
    returns: Schema = None
    """The schema of its return annotation, if it has one of JSON types."""
    effect: str | None = None
    """Its declared effect: `@tool(effect=…)`."""
    is_enforced: bool = False
    """Whether it requires that each call is recorded: `@tool(enforce_idempotency=True)`."""
    pauses: bool = False
    """Whether it pauses the run by raising `PausedException`."""


@dataclass(frozen=True)
class Module:
    """One module of the project: its path, and the names at its top level."""

    path: str
    names: Mapping[str, Signature | None]
    """Signatures by name; None if the source has none (a decorated function, a class, an assignment)."""
    complete: bool
    """Whether the module has no other names (no star import, no `__getattr__`)."""
    constants: frozenset[str] = frozenset()
    """Names of numbers, texts, lists and mappings, which are not callable."""


def read_module(module: str, source: Source) -> Module | None:
    """Return a module from its source text, or None if the project has no readable source of it.

    The file is found by its path in the project, not with the import system, which would execute the
    parent packages.
    """
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        try:
            data = source.read(path)
            body = ast.parse(data, filename=path).body
        except (SourceRefused, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return Module(path, *_names(body), frozenset(_constants(body)))
    return None


def is_agent(target: str, source: Source) -> bool:
    """Return whether `module:name` is an agent: an object of a class of its module that has `ask`.

    False where the source does not show it: of an object that another module makes, for instance.
    """
    module, _, name = target.partition(":")
    found = read_module(module, source)
    if found is None:
        return False
    body = ast.parse(source.read(found.path)).body
    classes = {
        each.name
        for each in body
        if isinstance(each, ast.ClassDef)
        and any(getattr(method, "name", "") == "ask" for method in each.body)
    }
    for each in body:
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        made = getattr(each, "value", None)
        if name in map(_name, targets) and isinstance(made, ast.Call):
            return _name(made.func) in classes
    return False


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def declaration(target: str, source: Source) -> str | None:
    """Return the description of a tool for a model: name, parameters and docstring from the source.

    None if the project's source does not define it as a plain function.
    """
    module, _, qualname = target.partition(":")
    found = read_module(module, source)
    if found is None:
        return None
    body: list[ast.stmt] = ast.parse(source.read(found.path)).body
    *around, name = qualname.split(".")
    for owner in around:
        body = next((s.body for s in body if isinstance(s, ast.ClassDef) and s.name == owner), [])
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
            returns = "" if statement.returns is None else f" -> {ast.unparse(statement.returns)}"
            head = f"{name}({ast.unparse(statement.args)}){returns}"
            return "\n".join(filter(None, [head, ast.get_docstring(statement)]))
    return None


def class_without(attribute: str, target: str, source: Source) -> str | None:
    """Return the class of the object that `target` makes, if the object certainly has no such attribute.

    `target` is a class, or a function that is annotated with a class of its module, or an iterator of it.
    """
    module, _, name = target.partition(":")
    found = read_module(module, source)
    body = [] if found is None else ast.parse(source.read(found.path)).body
    named = {each.name: each for each in body if isinstance(each, _NAMED)}
    made = named.get(name)
    if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef):
        hint = made.returns
        hint = hint.slice if isinstance(hint, ast.Subscript) else hint
        made = named.get(hint.id) if isinstance(hint, ast.Name) else None
    if not isinstance(made, ast.ClassDef) or not _is_certainly_without(attribute, made, named):
        return None
    return made.name


_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_PLAIN_BASES = frozenset({"AppResources", "BaseModel", "object"})


def _is_certainly_without(attribute: str, kind: ast.ClassDef, named: Mapping[str, ast.stmt]) -> bool:
    if kind.keywords or any("dataclass" not in ast.unparse(each) for each in kind.decorator_list):
        return False  # a metaclass or a decorator may add it
    for base in kind.bases:
        name = ast.unparse(base).rpartition(".")[2]
        inner = named.get(name)
        if isinstance(inner, ast.ClassDef) and inner is not kind:
            if not _is_certainly_without(attribute, inner, named):
                return False
        elif name not in _PLAIN_BASES:
            return False
    written = {getattr(each, field, None) for each in ast.walk(kind) for field in ("id", "attr", "name")}
    return not written & {attribute, "__getattr__", "__getattribute__", "setattr", "__dict__"}


def _names(body: list[ast.stmt]) -> tuple[dict[str, Signature | None], bool]:
    names: dict[str, Signature | None] = {}
    complete = True
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                names[statement.name] = _function(statement)
                complete = complete and statement.name != "__getattr__"
            case ast.ClassDef():
                names[statement.name] = None
            case ast.Import() | ast.ImportFrom():
                bound = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
                names.update(dict.fromkeys(bound))
                complete = complete and "*" not in bound
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                names.update({node.id: None for node in targets if isinstance(node, ast.Name)})
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring
            case _:
                complete = False  # an `if`, a `try` or a loop may define any name
    return names, complete


def _constants(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names whose last assignment is a literal."""
    last: dict[str, ast.expr | None] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=targets, value=value):
                last.update({node.id: value for node in targets if isinstance(node, ast.Name)})
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                last[name] = value
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                last.pop(name, None)
            case _:
                pass
    literals = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)
    yield from (name for name, value in last.items() if isinstance(value, literals))


def _function(made: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature | None:
    effect, is_enforced = None, False
    for decorator in made.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="tool") | ast.Attribute(attr="tool"), keywords=given):
                said = {one.arg: one.value.value for one in given if isinstance(one.value, ast.Constant)}
                effect = str(said["effect"]) if "effect" in said else None
                is_enforced = said.get("enforce_idempotency") is True
            case _:
                return None  # another decorator may change the signature
    inside = list(ast.walk(made))
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in inside)
    returns = None if yields else schema_of(made.returns)
    return replace(
        _signature(made.args),
        returns=returns,
        effect=effect,
        is_enforced=is_enforced,
        pauses=any(map(_asks_a_human, inside)),
    )


def _asks_a_human(node: ast.AST) -> bool:
    match node:
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name == "PausedException"
        case _:
            return False


def _signature(given: ast.arguments) -> Signature:
    positional = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    keyword = [argument.arg for argument in given.kwonlyargs]
    bare = positional[: len(positional) - len(given.defaults)]
    bare += [name for name, default in zip(keyword, given.kw_defaults, strict=True) if default is None]
    by_name = (*(argument.arg for argument in given.args), *keyword)
    return Signature(by_name, tuple(bare), given.kwarg is not None)
