"""What git has of a file: asked by fixed commands, for a revision that can be nothing else."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from flujo.exceptions import GitFailed

if TYPE_CHECKING:
    from pathlib import Path

_REVISION = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_./@{}^~+-]*")
_TIMEOUT_S = 30


def file_at(revision: str, path: Path) -> str | None:
    """Return the text of a file at a revision; None when it did not exist there.

    Args:
        revision: a commit, branch or tag: `HEAD`, `main~2`, `v1.2`.
        path: the file, in a working tree of git.

    Raises:
        GitFailed: there is no git, no repository around the file, or no such revision in it.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise GitFailed(
            f"{revision!r} is not the name of a revision",
            hint="name a commit, a branch or a tag: `HEAD`, `main`, `v1.2`, `HEAD~1`",
            revision=revision,
        )
    if _git(path.parent, "rev-parse", "--is-inside-work-tree") is None:
        raise GitFailed(
            f"{path.parent} is in no git repository, so there is no {path.name} of {revision!r} in it",
            hint="`flujo lock diff` alone compares with the lock in the working tree",
            revision=revision,
        )
    commit = _git(
        path.parent, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit is None:
        raise GitFailed(
            f"git knows no revision {revision!r} here",
            hint="`git log --oneline` lists commits; a shallow clone of CI has few (`fetch-depth: 0`)",
            revision=revision,
        )
    return _git(path.parent, "cat-file", "blob", f"{commit.strip()}:./{path.name}")


def _git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints, None when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours, and a revision that was checked
            ["git", *words],  # noqa: S607 - git is wherever this machine has it
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise GitFailed("git is not installed, and a revision was asked for") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"git did not answer: {error}") from None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
