"""What a function's code is, and which outside names it reads; found in its bytecode, which is what runs."""

from __future__ import annotations

import dis
import functools
import re
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_READS_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_READS_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_BETWEEN = frozenset({"CACHE", "PUSH_NULL", "EXTENDED_ARG"})
"""Instructions that may stand between the parts of a dotted name."""
_IMPORTERS = frozenset({"import_module", "__import__"})
_MODULE = re.compile(r"\.*[^\W\d]\w*(\.[^\W\d]\w*)*")


@functools.lru_cache(maxsize=4096)
def outside_names(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """Return the chains of global names that the code reads, such as `("settings", "RATE")`."""
    return tuple(sorted({chain for one in _nested(code) for chain in _chains(one)}))


@functools.lru_cache(maxsize=4096)
def local_imports(code: CodeType, package: str) -> tuple[str, ...]:
    """Return the modules that the code imports itself; `import_module` with a constant name counts.

    Args:
        code: the code of a function.
        package: the package of its module, for relative imports.
    """
    found: set[str] = set()
    for one in _nested(code):
        level = 0
        for each in dis.get_instructions(one):
            if each.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and isinstance(each.argval, int):
                level = each.argval
            elif each.opname == "IMPORT_NAME":
                found.add("." * level + each.argval)
        if not _IMPORTERS.isdisjoint(one.co_names):
            found |= {each for each in one.co_consts if isinstance(each, str) and _MODULE.fullmatch(each)}
    return tuple(sorted({name for each in found if (name := _absolute(each, package))}))


@functools.lru_cache(maxsize=4096)
def imported_globals(code: CodeType) -> frozenset[str]:
    """Return the global names that the code imports itself: `global tables; import tables`."""
    found: set[str] = set()
    for one in _nested(code):
        before = ""
        for each in dis.get_instructions(one):
            if each.opname == "STORE_GLOBAL" and before in ("IMPORT_NAME", "IMPORT_FROM"):
                found.add(each.argval)
            before = each.opname
    return frozenset(found)


def _absolute(name: str, package: str) -> str:
    """Return the name of a module; a dot at its start stands for the package, two for that above it."""
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    above = package.rsplit(".", level - 1)[0] if level else ""
    return ".".join(filter(None, [above, rest]))


def attribute_names(code: CodeType) -> frozenset[str]:
    """Return every name in the code, nested functions included."""
    return frozenset(name for one in _nested(code) for name in one.co_names)


@functools.lru_cache(maxsize=4096)
def code_data(code: CodeType) -> Any:
    """Return the code as JSON data, without its file and line numbers."""
    return [
        code.co_code.hex(),
        [code_data(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts],
        [*code.co_names],
        [*code.co_varnames],
        [*code.co_freevars],
        [code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount],
        getattr(code, "co_exceptiontable", b"").hex(),
    ]


def _constant(value: Any) -> Any:
    """Return a constant as text; a set has no order of its own."""
    if isinstance(value, frozenset):
        return ["frozenset", sorted(ascii(each) for each in value)]
    return [type(value).__name__, ascii(value)]


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _chains(code: CodeType) -> Iterator[tuple[str, ...]]:
    chain: tuple[str, ...] = ()
    for each in dis.get_instructions(code):
        if each.opname in _READS_GLOBAL:
            if chain:
                yield chain
            chain = (each.argval,)
        elif chain and each.opname in _READS_ATTRIBUTE:
            chain = (*chain, each.argval)
        elif chain and each.opname not in _BETWEEN:
            yield chain
            chain = ()
    if chain:
        yield chain
