"""Finds literals that look like keys, passwords or tokens, by their shape, without showing them."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.language.traversal import texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic, Span
    from flujo.blueprint.reading.source_map import Document

MAX_IN_A_TEXT = 5
"""How many secrets of one text are reported. All of them are hidden."""

SECRET_LITERAL = rule(
    "FLJ230",
    "secret-literal",
    "A text that looks like a key, a password or a token",
    finds="A literal with the shape of a provider's key, a token, a private key or an address with a "
    "password, and random text under a name such as `api_key`. The text itself is never printed.",
    why="Blueprints are committed, pinned into every run, and shown in traces, so nothing in them is secret.",
    example="agents:\n  sorter: {model: openai:gpt-5-mini, model_settings: {api_key: sk-…}}",
    instead="# the key comes from the environment: OPENAI_API_KEY\n"
    "agents:\n  sorter: {model: openai:gpt-5-mini}",
)


def secret_literal(document: Document) -> Iterator[Diagnostic]:
    """Report texts that look like secrets, without showing them."""
    for path, text in texts(document.data):
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        for start, end in islice(find(text, key), MAX_IN_A_TEXT):
            yield secret_found(document.span_in(path, start, end), f"`{key}`")


def secret_found(span: Span, where: str) -> Diagnostic:
    """Return the finding for a secret at `span`."""
    return SECRET_LITERAL.at(
        span,
        f"{where} looks like it contains a secret, which must not be in a blueprint",
        hint="remove it, revoke it, and pass a new one through the environment",
    )


# Parts that may fail after a repetition are bounded, so that matching takes linear time.
_SHAPES = re.compile(
    r"""
    \b(?:sk|pk|rk)-(?:[a-z0-9]+-){0,3}[A-Za-z0-9_]{20,}[A-Za-z0-9_-]*      # model providers
    | \bgh[pousr]_[A-Za-z0-9]{20,} | \bgithub_pat_[A-Za-z0-9_]{20,}
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                       # AWS
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,}                    # Slack
    | \bAIza[A-Za-z0-9_-]{30,}                            # Google
    | -----BEGIN\ [A-Z\ ]{0,40}PRIVATE\ KEY-----
    | \beyJ[A-Za-z0-9_-]{8,200}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)?  # a JSON web token
    | \b[a-z][a-z0-9+.-]{0,20}://[^\s/:@{}]{1,100}:[^\s/@{}]{1,200}@       # a password in an address
    """,
    re.VERBOSE | re.ASCII,
)
_NAMED = re.compile(r"(?:^|_)(?:key|apikey|token|password|passwd|secret)$", re.IGNORECASE)
_RANDOM_CHARS = 24
_RANDOM_BITS = 4.2


def find(text: str, key: str = "") -> Iterator[tuple[int, int]]:
    """Yield the offsets of likely secrets in `text`; `key` is the key or name that holds the text."""
    found = [match.span() for match in _SHAPES.finditer(text)]
    if not found and _NAMED.search(key) and looks_random(text):
        found = [(0, len(text))]
    yield from found


_ASSIGNED = re.compile(
    r"[\w-]{0,60}(?:key|token|password|passwd|secret)['\"]?\s{0,9}[:=]\s{0,9}['\"]?([^\s'\",}]{24,200})", re.I
)


def find_named(source: str) -> Iterator[tuple[int, int]]:
    """Yield the offsets of random text after a name such as `api_key`, in a source that may not parse."""
    yield from (match.span(1) for match in _ASSIGNED.finditer(source) if looks_random(match[1]))


def looks_random(text: str) -> bool:
    """Return whether `text` is one long word with the entropy of random characters."""
    if len(text) < _RANDOM_CHARS or any(char.isspace() for char in text) or "{{" in text:
        return False
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts) > _RANDOM_BITS
