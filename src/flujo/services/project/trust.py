"""Finds the folder of a project, and refuses one that another user of this machine can control.

Git has had the same rule since 2022 (`safe.directory`): settings, code and database of a project are used
only if it belongs to this user or to root, or if the user has trusted its path.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.exceptions import ProjectNotTrusted, SettingsError
from flujo.settings import CONFIG_FILE, TRUST_VARIABLE, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY = "*"
"""In `FLUJO_TRUSTED_PROJECTS`: every project, for containers."""


def project_root(start: Path) -> Path | None:
    """Return the nearest folder from `start` upward that has a flujo.toml; None when there is none.

    The search ends at the root of a repository, at the user's home, and where a file system ends.

    Args:
        start: a folder, resolved.
    """
    for folder in _upward(start):
        found = _status(folder / CONFIG_FILE, follow=True)
        if found is not None and stat.S_ISREG(found.st_mode):
            return folder
    return None


def require_trust(root: Path) -> None:
    """Check that no other user controls the project in the folder `root`.

    The folder itself counts only if it has a flujo.toml: nothing is imported from another folder.

    Raises:
        ProjectNotTrusted: another user does, and this user has not trusted the project.
    """
    reason = _distrust(root)
    if reason is not None and not _is_trusted(root):
        raise ProjectNotTrusted(
            f"the project {root} is not used, because {reason}",
            hint=f"read its flujo.toml and code, then trust it: `{command('flujo', 'trust', str(root))}`",
            path=str(root),
        )


def record_trust(root: Path) -> Path:
    """Record that this user trusts the project in `root`; return the file with the trusted paths.

    Raises:
        SettingsError: the path cannot be recorded, or the file cannot be written.
    """
    file = trusted_file()
    if "\n" in str(root):
        raise SettingsError(f"{str(root)!r} cannot be trusted: its path has a line break", path=str(root))
    if str(root) not in _recorded():
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as opened:
                opened.write(f"{root}\n")
        except OSError as error:
            raise SettingsError(f"{file} cannot be written: {error.strerror}", path=str(file)) from error
    return file


def trusted_file() -> Path:
    """Return the file with the paths of the projects that this user trusts, one a line."""
    base = environment().get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "flujo" / "trusted-projects"


def _upward(start: Path) -> Iterator[Path]:
    home = _home()
    device = start.stat().st_dev
    for folder in (start, *start.parents):
        if (status := _status(folder, follow=True)) is None or status.st_dev != device:
            return
        yield folder
        if folder == home or _status(folder / ".git", follow=False) is not None:
            return


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except (RuntimeError, OSError):  # a user without a home
        return None


def _distrust(root: Path) -> str | None:
    """Return why the project in `root` is not trusted, or None if it is."""
    if not hasattr(os, "geteuid"):
        return None
    own = _own_ids()
    for path in (root / CONFIG_FILE, root / ".flujo"):
        # Both the link and its target: a stranger may link to a file of this user.
        for found in filter(None, (_status(path, follow=False), _status(path, follow=True))):
            if found.st_uid not in own and found.st_uid != 0:
                return f"{path} belongs to user {_name(found.st_uid)}"
    folder = root.stat()
    if folder.st_uid in own or not (root / CONFIG_FILE).exists():
        return None
    if folder.st_uid != 0:
        return f"its folder belongs to user {_name(folder.st_uid)}"
    return "every user can write to its folder" if folder.st_mode & stat.S_IWOTH else None


def _own_ids() -> set[int]:
    """Return the ids of this user: with `sudo`, also of the user who called it."""
    own = {os.geteuid()}
    caller = environment().get("SUDO_UID", "")
    if own == {0} and caller.isdecimal():
        own.add(int(caller))
    return own


def _status(path: Path, *, follow: bool) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError:
        return None


def _is_trusted(root: Path) -> bool:
    named = environment().get(TRUST_VARIABLE, "").split(os.pathsep)
    return ANY in named or str(root) in named or str(root) in _recorded()


def _recorded() -> list[str]:
    try:
        return trusted_file().read_text("utf-8").splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):  # no file, no home, or not a file of this user
        return []


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
