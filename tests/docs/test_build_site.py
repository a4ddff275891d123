"""The documentation site has every page, and loads nothing from another host. `make check` builds it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site() -> Any:
    """The module `docs/build_site.py`."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs/build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(section: Any) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    if isinstance(section, str):
        yield section
    elif isinstance(section, list):
        for each in section:
            yield from pages(each)
    else:
        yield from pages(list(section.values()))


def test_every_page_is_in_the_navigation_once(site: Any) -> None:
    found = list(pages(site.navigation()))
    there = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(found) == sorted(there)


def test_no_group_of_the_navigation_is_empty(site: Any) -> None:
    [how_to] = [each["How to"] for each in site.navigation() if "How to" in each]
    assert all(names for group in how_to for names in group.values())


@pytest.mark.parametrize(
    ("written", "fitted"),
    [
        ('```yaml title="a.yaml" invalid', '```yaml title="a.yaml"'),
        ('```python excerpt="src/a.py"', '```python title="src/a.py"'),
        ("```console model exit=5", "```console"),
        ("```toml", "```toml"),
        (
            "[b](../../blueprints/b.yaml)",
            "[b](https://github.com/flujo-dev/flujo/blob/main/blueprints/b.yaml)",
        ),
        ("[p](ask-a-human.md#set-a-deadline)", "[p](ask-a-human.md#set-a-deadline)"),
        ("[w](https://example.org/x)", "[w](https://example.org/x)"),
        ("[s](../performance.svg)", "[s](../performance.svg)"),
    ],
)
def test_pages_are_fitted_to_the_site(site: Any, written: str, fitted: str) -> None:
    assert site.fitted(written, ROOT / "docs/how-to/page.md") == fitted


def test_what_a_page_loads_from_another_host_is_found(site: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<a href="https://example.org">a</a><script src="assets/a.js"></script>')
    assert site.loaded_from_elsewhere(page) == []
    page.write_text('<link rel="preconnect" href="https://fonts.example.org" crossorigin>')
    assert len(site.loaded_from_elsewhere(page)) == 1
    style = tmp_path / "style.css"
    style.write_text("@import 'https://example.org/a.css'; b {background: url(//example.org/b.png)}")
    assert len(site.loaded_from_elsewhere(style)) == 2
