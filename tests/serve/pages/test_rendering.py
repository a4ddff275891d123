"""Pages from templates: the frame that all of them have, and what is shown of a value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jinja2 import UndefinedError
from starlette.testclient import TestClient

import flujo.serve
from flujo.governance.sink import GATE
from flujo.serve.pages import rendering
from flujo.serve.pages.rendering import Unmasked
from serve.asked import opened, question
from serve.served import with_token

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace

CSS = (Path(flujo.serve.__file__).parent / "static" / "flujo.css").read_text("utf-8")


def rendered(text: str, **values: object) -> str:
    return rendering._TEMPLATES.from_string(text).render(**values)


def test_the_frame_has_a_skip_link_the_pages_and_the_user(browser: TestClient) -> None:
    shown = browser.get("/").text
    assert '<a class="skip" href="#main">' in shown
    assert '<main id="main"' in shown
    assert '<a href="/" aria-current="page">Inbox</a>' in shown
    assert shown.count("aria-current") == 1
    assert re.search(r'class="account"[^>]*><span>.+</span>', shown)


def test_links_and_redirects_begin_with_the_path_of_the_server(
    browser: TestClient, workspace: Workspace
) -> None:
    assert browser.get("/static/flujo.css").text == CSS
    opened(browser, workspace, "r", question())
    local = {"base_url": "http://127.0.0.1:8400/", "client": ("127.0.0.1", 50_000)}
    behind = TestClient(browser.app, root_path="/flujo", follow_redirects=False, **local)  # type: ignore[arg-type]
    behind.portal = browser.portal
    with_token(behind)
    shown = behind.get("/").text
    assert all(
        each.startswith(("/flujo/", "#")) for each in re.findall(r' (?:href|src|action)="([^"]*)"', shown)
    )
    claimed = behind.post("/questions/r/ask", data={"_do": "claim"})
    assert claimed.headers["location"] == "/flujo/questions/r/ask"


def test_a_value_is_escaped_and_its_invisible_characters_are_shown() -> None:
    assert rendered("{{ a }}{{ b }}{{ c }}", a="<b>", b="\u202e", c=None) == "&lt;b&gt;\\u202e"
    with pytest.raises(UndefinedError):
        rendered("{{ missing }}")


def test_a_secret_is_masked_unless_the_reader_has_typed_the_text() -> None:
    GATE.know(["hunter2-hunter2"], "KEY")
    assert "hunter2" not in rendered("{{ a }}", a="it is hunter2-hunter2")
    assert rendered("{{ a }}", a=Unmasked("hunter2-hunter2 <i>")) == "hunter2-hunter2 &lt;i&gt;"


def test_texts_have_a_contrast_of_at_least_4_5_in_light_and_dark() -> None:
    pairs = dict(re.findall(r"--([a-z-]+): light-dark\((#\w+, #\w+)\)", CSS))
    colours = {name: pair.split(", ") for name, pair in pairs.items()}
    for scheme in (0, 1):
        for name in ("text", "quiet", "accent", "good", "warning", "bad"):
            for ground in ("ground", "raised"):
                assert contrast(colours[name][scheme], colours[ground][scheme]) >= 4.5, (name, ground, scheme)
        assert contrast(colours["on-accent"][scheme], colours["accent"][scheme]) >= 4.5
        assert contrast(colours["line"][scheme], colours["ground"][scheme]) >= 3


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
