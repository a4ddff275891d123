"""Builds the documentation site: `python docs/build_site.py [FOLDER]`, or `make docs`.

The site of each version is a folder `FOLDER/VERSION`; the other versions there stay, and `versions.json` lists all of them.
MkDocs loads this file as well, as a hook: `on_config` and `on_page_markdown`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/flujo-dev/flujo/blob/main/"
HOW_TO = {
    "Write": "write-* inspect-* check-* share-agents* use-a-blueprint* set-up-* run-a-pipeline-that-* come-from-*",
    "Agents and models": "give-* use-a-provider* use-a-compatible* use-mcp* run-a-long-* send-images* share-a-conv* see-what-*",
    "Humans and time": "ask-a-human* approve-* wait-* run-on-a-schedule* limit-the-life* notify-*",
    "Run and operate": "deploy* use-flujo-in-* size-* run-* resume-* recover-* operate-* use-more-* spread-* put-a-map-* use-postgres* "
    "change-* purge-* keep-large* follow-*",
    "Safety and cost": "handle-* limit-* budgets-* know-* keep-personal* erase-* lock-* make-a-call* settle-*",
    "Test and evaluate": "test-* make-a-run* evaluate-* score-* try-* replay-*",
}
"""The groups of docs/how-to, by patterns of file names. A page is in the first one that fits; others are in `Look at runs`."""
REST = "Look at runs"
FOLDERS = {
    "Concepts": "concepts",
    "Reference": "reference",
    "Kinds of steps": "reference/steps",
    "Architecture": "architecture",
    "Decisions": "adr",
}


def navigation() -> list[dict[str, Any]]:
    """Return the navigation: every page of docs, in sections."""
    sections: list[dict[str, Any]] = [{"Home": "index.md"}, {"Tutorial": _pages("tutorial")}]
    left = _pages("how-to")
    groups: list[dict[str, Any]] = []
    for title, patterns in HOW_TO.items():
        chosen = [each for each in left if any(Path(each).match(pattern) for pattern in patterns.split())]
        left = [each for each in left if each not in chosen]
        groups.append({title: chosen})
    sections.append({"How to": [*groups, {REST: left}]})
    sections += [{title: _pages(folder)} for title, folder in FOLDERS.items()]
    top = [each for each in _pages("") if each != "index.md"]
    return [*sections, {"More": top}]


def _pages(folder: str) -> list[str]:
    return sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / folder).glob("*.md"))


def on_config(config: Any) -> Any:
    """Set the navigation, so that a new page needs no other change."""
    config.nav = navigation()
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a page as the site needs it."""
    return fitted(markdown, DOCS / page.file.src_uri)


def fitted(markdown: str, path: Path) -> str:
    """Return the text with titles of blocks alone, and with links out of docs as links to the repository."""
    text = re.sub(r"^```(\w+) (.+)$", _fence, markdown, flags=re.MULTILINE)
    return re.sub(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)", lambda found: _link(found, path), text)


def _fence(found: re.Match[str]) -> str:
    named = re.search(r'(?:title|excerpt)="([^"]+)"', found[2])
    return f'```{found[1]} title="{named[1]}"' if named else f"```{found[1]}"


def _link(found: re.Match[str], path: Path) -> str:
    target = (path.parent / found[1]).resolve()
    if not target.is_relative_to(DOCS) or target.suffix == ".py":
        return f"]({REPOSITORY}{target.relative_to(ROOT).as_posix()}{found[2] or ''})"
    return found[0]


def build(folder: Path, version: str) -> None:
    """Build the site of a version, and list all versions.

    Raises:
        SystemExit: MkDocs has found a mistake, such as a link to a missing page, or a page loads something from another host.
    """
    site = (folder / version).resolve()
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(ROOT / "mkdocs.yml"),
        "-d",
        str(site),
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    if loads := [
        f"{page}: {each}" for page in sorted(site.rglob("*.*")) for each in loaded_from_elsewhere(page)
    ]:
        sys.exit("\n".join(["these files load something from another host:", *loads]))
    found = sorted((each.name for each in folder.iterdir() if each.is_dir()), key=_order, reverse=True)
    listed = [
        {"version": each, "title": each, "aliases": ["latest"] if each == found[0] else []} for each in found
    ]
    (folder / "versions.json").write_text(json.dumps(listed), "utf-8")
    (folder / "index.html").write_text(
        f'<!doctype html><meta http-equiv="refresh" content="0; url={found[0]}/"><title>Flujo</title>\n',
        "utf-8",
    )


def loaded_from_elsewhere(file: Path) -> list[str]:
    """Return what a browser would load from another host for a page or a style sheet. Links to click are none."""
    patterns = {
        ".html": r"<(?:script|img|iframe|source|video|link)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>",
        ".css": r"(?:url\(|@import )[\"']?(?:https?:)?//[^)\"';]*",
    }
    pattern = patterns.get(file.suffix)
    found = re.findall(pattern, file.read_text("utf-8")) if pattern else []
    return [each for each in found if 'rel="canonical"' not in each]


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if __name__ == "__main__":
    import flujo

    major, minor, *_ = flujo.__version__.split(".")
    build(Path(sys.argv[1] if sys.argv[1:] else ROOT / "site"), f"{major}.{minor}")
