"""Reads files at a git revision, with fixed commands and a checked revision."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from flujo.domain.text import MARK
from flujo.exceptions import GitFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_REVISION = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_./@{}^~+-]*")
_TIMEOUT_S = 30


def file_at(revision: str, path: Path) -> str | None:
    """Return the text of a file at a revision, or None if it did not exist.

    Args:
        revision: a commit, branch or tag: `HEAD`, `main~2`, `v1.2`.
        path: the file, in a working tree of git.

    Raises:
        GitFailed: git is missing, the file is not in a repository, or the revision does not exist.
    """
    commit = commit_of(revision, path.parent, f"{path.name} has no revision {revision!r}")
    return _git(path.parent, "cat-file", "blob", f"{commit}:./{path.name}")


def files_below(folder: Path, commit: str) -> Callable[[str], str | None]:
    """Return what reads a file of a folder at a commit, by its path in it; None if there is none."""
    return lambda path: _git(folder, "cat-file", "blob", f"{commit}:./{path}")


def commit_of(revision: str, folder: Path, otherwise: str = "") -> str:
    """Return the commit that a revision means.

    Args:
        revision: a commit, branch or tag: `HEAD`, `main~2`, `v1.2`.
        folder: a folder of the repository.
        otherwise: what follows if the folder is in none, for the error.

    Raises:
        GitFailed: git is missing, the folder is not in a repository, or the revision does not exist.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise GitFailed(
            f"{revision!r} is not a valid git revision",
            hint="use a commit, a branch or a tag: `HEAD`, `main`, `v1.2`, `HEAD~1`",
            revision=revision,
        )
    if _git(folder, "rev-parse", "--is-inside-work-tree") is None:
        raise GitFailed(
            f"{folder} is not in a git repository, so {otherwise or f'there is no revision {revision!r}'}",
            hint="without a revision, `flujo lock diff` compares with the lock in the working tree",
            revision=revision,
        )
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    commit = _git(folder, *words)
    if commit is None:
        raise GitFailed(
            f"git revision {revision!r} does not exist",
            hint="`git log --oneline` lists commits; a shallow clone in CI has few, set `fetch-depth: 0`",
            revision=revision,
        )
    return commit.strip()


def _git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints, None when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a checked revision
            ["git", *words],  # noqa: S607 - git is found on PATH
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise GitFailed("git is not installed; reading a revision needs it") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"git failed: {error}") from None
    return done.stdout.decode("utf-8", "replace").removeprefix(MARK) if done.returncode == 0 else None
