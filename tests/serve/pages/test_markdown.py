"""Text in Markdown as safe HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from flujo.governance.sink import GATE
from flujo.serve.pages.markdown import markdown


def test_paragraphs_lists_tables_and_code_are_shown() -> None:
    shown = markdown("# Refund\n**42 EUR**\nnext line\n\n- a\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n`x < y`")
    for part in ("<h1>Refund</h1>", "<strong>42 EUR</strong><br>", "<li>a</li>", "<td>1</td>", "x &lt; y"):
        assert part in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](https://tracker.example/a.png)",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,AAAA)",
        "[x](/logout)",
        "[x](//tracker.example)",
        '<a href="#" style="x" onclick="y">z</a>',
        "<style>body{}</style><iframe src=x></iframe><form action=x>",
        "```html\n<script>alert(1)</script>\n```",
        '[x](https://a.example "onmouseover=alert(1)")',
        "\u202ereversed",
    ],
)
def test_nothing_of_a_text_is_executed_or_loaded(text: str) -> None:
    shown = markdown(text)
    found = Found()
    found.feed(shown)
    assert {tag for tag, _ in found.tags} <= {"p", "a", "pre", "code"}
    for _, attributes in found.tags:
        assert attributes.keys() <= {"href", "rel"}
        assert attributes.get("href", "https:").startswith(("https:", "http:", "mailto:"))
    assert "\u202e" not in shown


class Found(HTMLParser):
    """The tags of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


def test_a_link_tells_its_target_nothing_and_a_secret_is_masked() -> None:
    GATE.know(["hunter2-hunter2"], "KEY")
    shown = markdown("[docs](https://example.com) hunter2-hunter2")
    assert 'href="https://example.com" rel="noopener noreferrer nofollow"' in shown
    assert "hunter2" not in shown
