"""The screenshots of the documentation are of the pages that there are now; `make docs` takes them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 60_000


@pytest.fixture
def screenshots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs/screenshots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept() -> dict[str, str]:
    found: dict[str, str] = json.loads((PICTURES / "pages.json").read_text("utf-8"))
    return found


def test_each_screenshot_is_of_the_page_of_now_and_is_small(screenshots: Any) -> None:
    assert not (old := screenshots.outdated()), old
    sizes = {path.stem: path.stat().st_size for path in PICTURES.glob("*.webp")}
    assert sizes.keys() == kept().keys()
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}


def test_without_a_browser_only_a_screenshot_that_is_out_of_date_is_an_error(
    screenshots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = kept()

    async def digests() -> dict[str, str]:
        return now

    monkeypatch.setattr(screenshots, "digests", digests)
    monkeypatch.setattr(screenshots.shutil, "which", lambda _: None)
    screenshots.main()
    now["inbox"] = "another"
    with pytest.raises(SystemExit, match=r"out of date: docs/pictures/inbox.webp.*`chromium` is on PATH"):
        screenshots.main()
