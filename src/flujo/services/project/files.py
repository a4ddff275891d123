"""The files that steps may send to models: those of the project, and of the folders in its settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from flujo.blueprint.sources.source_files import FileSource, SourceRefused
from flujo.domain.files import MOST_BYTES
from flujo.domain.wording import short, size
from flujo.exceptions import FileRefused

_WHERE = "send a file of the project, or of a folder that `[project] file_folders` in flujo.toml names"


@dataclass(frozen=True, slots=True)
class ProjectFiles:
    """Reads files below `root` or one of the other folders; links and `..` may not lead out of them."""

    root: Path
    folders: tuple[Path, ...] = ()

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Args:
            path: relative to `root`, or absolute.

        Raises:
            FileRefused: it is outside, hidden, too large, not a regular file, or cannot be read.
        """
        folder, inside = self._placed(path)
        real = os.path.relpath(os.path.realpath(folder / inside), os.path.realpath(folder))
        if any(part.startswith(".") for part in (*inside.parts, *PurePath(real).parts) if part != ".."):
            raise _refused(path, "it is hidden, and hidden files often hold secrets", "rename it, or copy it")
        try:
            if (folder / inside).stat().st_size > MOST_BYTES:
                raise _refused(
                    path, f"it is larger than {size(MOST_BYTES)}", "send a smaller file, or a part of it"
                )
            return FileSource(folder, MOST_BYTES).read(inside.as_posix())
        except SourceRefused as error:
            raise _refused(path, error.reason, error.hint if error.missing else _WHERE) from error
        except FileNotFoundError as error:
            raise _refused(path, "the file does not exist", "check the spelling and the folder") from error
        except OSError as error:
            raise _refused(
                path, os.strerror(error.errno or 0), "check the path and its permissions"
            ) from error

    def _placed(self, path: str) -> tuple[Path, PurePath]:
        """Return the folder that a file is in, and its path there."""
        if "\0" in path:
            raise _refused(path, "its path has a NUL character", _WHERE)
        whole = Path(os.path.normpath(self.root / path))
        for folder in (self.root, *self.folders):
            if whole.is_relative_to(folder):
                return folder, whole.relative_to(folder)
        raise _refused(path, "it is outside the project", _WHERE)


def _refused(path: str, reason: str, hint: str) -> FileRefused:
    return FileRefused(f"file {short(path, 200)!r} is not sent: {reason}", hint=hint, file=path)
