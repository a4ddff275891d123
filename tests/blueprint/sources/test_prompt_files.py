"""A prompt file is read as strictly as a blueprint, and findings point into it."""

import pytest

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.sources.source_files import PinnedSource

ENTRY = (
    'version: "1"\nname: ask\nagents: {a: {model: test:x, instructions_file: ./p.md}}\n'
    "steps: [{name: s, agent: a}]\n"
)


def found(prompt: bytes) -> list[tuple[str, str, str]]:
    source = PinnedSource({"blueprints/ask.yaml": ENTRY.encode(), "blueprints/p.md": prompt})
    compiled = compile_blueprint("blueprints/ask.yaml", source)
    errors = [one for one in compiled.diagnostics if one.is_error]
    assert (compiled.pipeline is None) is bool(errors)
    assert all([str(span) for span, _ in one.related] == ["blueprints/ask.yaml:3:48"] for one in errors)
    return [(one.code, str(one.span), one.message) for one in errors]


@pytest.mark.parametrize(
    ("prompt", "code", "place", "words"),
    [
        ("Be kind.\nSay \u202eyes".encode(), "FLJ103", "blueprints/p.md:2:5", "U+202E"),
        (b"Be kind.\r\nSay \0yes", "FLJ102", "blueprints/p.md:2:5", "NUL"),
        (b"Be\x1b[31m kind", "FLJ102", "blueprints/p.md:1:3", "U+001B"),
        (b"Be kind\nand caf\xe9", "FLJ102", "blueprints/p.md:2:8", "0xE9"),
        ("Be kind".encode("utf-16"), "FLJ102", "blueprints/p.md:1:1", "UTF-8"),
    ],
)
def test_characters_forbidden_in_blueprints_are_forbidden_in_prompts(
    prompt: bytes, code: str, place: str, words: str
) -> None:
    [(its, where, message)] = found(prompt)
    assert (its, where) == (code, place)
    assert words in message


@pytest.mark.parametrize(
    "prompt",
    [
        "Be kind. \U0001f468\u200d\U0001f469\t\u05e9\u05dc\r\n%2e%2e\r\n".encode(),
        b"\xef\xbb\xbfBe kind.",
        b"x" * 300_000,
    ],
)
def test_common_text_in_prompts_is_accepted(prompt: bytes) -> None:
    assert found(prompt) == []
