"""A user's regular expression against a text, in a time that grows with the text and no faster (RE2)."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

# What JSON Schema and Python write, and RE2 writes in another way.
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|(?P<end>Z)|.)", re.DOTALL)
_REPLACEMENT = "\ufffd"


class PatternRefused(ValueError):
    """RE2 does not take a pattern; says why."""


def is_found(pattern: str, text: str) -> bool:
    """Return whether `pattern` matches somewhere in `text`.

    The library reads texts as C does, up to the first NUL, and knows no lone surrogates: both are looked at
    as U+FFFD, so that nothing hides behind them.

    Raises:
        PatternRefused: it is no regular expression, or needs what RE2 leaves out to stay linear:
            lookaround, backreferences, possessive quantifiers, more than 1,000 repetitions.
    """
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", _REPLACEMENT)
    value = _search().eval(data={"text": plain, "pattern": _spelt_for_re2(pattern)})
    if value.type() == _library().Type.BOOL:
        return bool(value.plain_value())
    raise PatternRefused(str(value.plain_value()).rpartition("invalid regular expression: ")[2])


def check_pattern(pattern: str) -> None:
    """Return when `pattern` can be used.

    Raises:
        PatternRefused: as `is_found` does.
    """
    is_found(pattern, "")


@lru_cache(maxsize=1024)
def _spelt_for_re2(pattern: str) -> str:
    if "\0" in pattern:
        raise PatternRefused("it holds a NUL character")
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        raise PatternRefused("it holds half of a surrogate pair") from error
    return _ESCAPE.sub(_escape, pattern)


def _escape(found: re.Match[str]) -> str:
    if found["code"]:
        return f"\\x{{{found['code']}}}"
    return r"\z" if found["end"] else found[0]


@cache
def _library() -> Any:
    # Loaded when the first pattern is met; its `matches` is RE2, and so no second engine has to be installed.
    from cel_expr_python import cel

    return cel


@cache
def _search() -> Any:
    cel = _library()
    environment = cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING})
    return environment.compile("text.matches(pattern)")
