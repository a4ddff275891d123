"""The vocabulary of CEL: reserved words, functions, and the tokens of literals."""

from __future__ import annotations

import re

MAX_SOURCE = 2048
"""The longest expression, in bytes of UTF-8."""

TYPE_NAMES = frozenset(
    {"bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"}
)
"""Names of CEL's types, which are values in an expression."""

FUNCTIONS = frozenset(
    """
    all bool bytes charAt contains double duration dyn endsWith exists exists_one filter format get getDate
    getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes getMonth
    getSeconds has indexOf int join lastIndexOf lowerAscii map matches quote replace reverse size split
    startsWith string substring timestamp trim type uint upperAscii
    """.split()  # noqa: SIM905 - as above
)
"""All functions: CEL's standard library, its strings extension, its macros, and `get`."""

NAMESPACES = frozenset({"strings"})
"""Namespaces of functions, as in `strings.quote(text)`."""

TOKEN = re.compile(
    r"""(?P<raw>[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'{3}.*?'{3}|\"[^\"\n]*\"|'[^'\n]*'))"""
    r"""|(?P<long>[bB]?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'{3}(?:[^\\]|\\.)*?'{3}))"""
    r"""|(?P<text>[bB]?(?:\"(?:[^\\\"\n]|\\.)*\"|'(?:[^\\'\n]|\\.)*'))"""
    r"""|(?P<quoted>`[^`\n]*`)|(?P<comment>//[^\n]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>[0-9][A-Za-z0-9_]*(?:\.[0-9]+)?)|(?P<space>\s+)"""
    r"""|(?P<operator>&&|\|\||[=!<>]=)|(?P<other>.)""",
    re.DOTALL,
)
"""CEL's tokens, enough to separate code from literals. Every character belongs to exactly one token."""

# CEL rejects the identifier `loop`. A stand-in of the same length keeps all offsets correct.
LOOP, LOOP_STAND_IN = "loop", "l__p"
