"""Matches users' regular expressions with RE2, in time linear in the length of the text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# `\u00e9` and `\Z` are the notations of JSON Schema and Python for what RE2 writes `\x{00e9}` and `\z`.
_ESCAPE = re.compile(r"\\(?:u(?P<code>[0-9A-Fa-f]{4})|(?P<end>Z)|.)", re.DOTALL)


class PatternRefused(ValueError):
    """RE2 does not compile a pattern; the message is the reason."""


def is_found(pattern: str, text: str) -> bool:
    """Return whether `pattern` matches somewhere in `text`; a lone surrogate in it counts as U+FFFD.

    Raises:
        PatternRefused: it is not a regular expression, or uses a feature that RE2 does not support:
            lookaround, backreferences, possessive quantifiers, more than 1,000 repetitions.
    """
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _compiled(pattern).search(plain) is not None


def check_pattern(pattern: str) -> None:
    """Raise `PatternRefused` when RE2 does not compile `pattern`."""
    _compiled(pattern)


@lru_cache(maxsize=128)  # each uses up to 8 MiB
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False  # otherwise RE2 also writes them to stderr
    try:
        return re2.compile(_ESCAPE.sub(_escape, pattern), options)
    except UnicodeEncodeError as error:
        raise PatternRefused("it contains half of a surrogate pair") from error
    except re2.error as error:
        raise PatternRefused(error.args[0].decode(errors="replace")) from error


def _escape(found: re.Match[str]) -> str:
    if found["code"]:
        return f"\\x{{{found['code']}}}"
    return r"\z" if found["end"] else found[0]
