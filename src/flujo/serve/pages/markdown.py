"""Text in Markdown as safe HTML: without HTML of its own, and without images."""

from __future__ import annotations

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

from flujo.governance.screen import visible
from flujo.governance.sink import GATE

_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
_PARSER = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")


def markdown(text: str) -> Markup:
    """Return a text in Markdown as HTML, masked as all values of a page are.

    The text may come from a model. What remains are paragraphs, lists, tables, code, and links to `http`,
    `https` and `mailto` addresses.
    """
    made = _PARSER.render(visible(GATE.result(text)))
    cleaned = nh3.clean(
        made,
        tags=_TAGS,
        attributes={"a": {"href"}, "*": set()},
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(cleaned)  # noqa: S704 - nh3 has left only the tags above
