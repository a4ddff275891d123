"""`code = "ship"`: the modules of a project, packed for workers that do not have them."""

from __future__ import annotations

import atexit
import io
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.wording import reason, size
from flujo.exceptions import ExecutorUnavailable
from flujo.services.project.imports import files_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.services.executors.wire import ProjectOnWorker

MOST_BYTES = 16 * 1024 * 1024
"""The maximum size of the packed modules."""

_NO_CODE = {"__pycache__", "node_modules", "site-packages"}


@dataclass(frozen=True, slots=True)
class Packed:
    """The modules of a project as a zip file, and its digest."""

    data: bytes
    digest: str


def packed(root: Path, executor: str) -> Packed:
    """Return the `.py` files below a folder; those of hidden folders and virtual environments are left out.

    Raises:
        ExecutorUnavailable: they are too large, or one cannot be read.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _modules(root):
            entry = zipfile.ZipInfo(
                path.relative_to(root).as_posix()
            )  # without times: the same files are the same
            archive.writestr(entry, _read(path, executor), zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    if len(data) > MOST_BYTES:
        raise ExecutorUnavailable(
            f"the modules of the project have {size(len(data))}, and executor {executor!r} ships "
            f"{size(MOST_BYTES)} at most",
            hint='install the code on the workers, and leave `code = "ship"` out',
            executor=executor,
        )
    return Packed(data, canonical.digest(data))


def _read(path: Path, executor: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExecutorUnavailable(
            f"a module of the project cannot be read, which executor {executor!r} ships: {reason(error)}",
            hint="make it readable, or move it out of the project",
            executor=executor,
        ) from error


def _modules(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and name not in _NO_CODE and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


def moved(project: ProjectOnWorker, folder: str) -> ProjectOnWorker:
    """Return a project whose modules are in a folder of a worker, and whose files stay where they were."""
    root = Path(project.root)
    providers = {
        name: f"file:{root / url.removeprefix('file:').removeprefix('//')}"
        if url.startswith("file:")
        else url
        for name, url in project.state_providers.items()
    }
    return replace(project, root=folder, state_providers=providers)


def unpacked(data: bytes, digest: str) -> str:
    """Unpack modules into a folder of this worker, once, and return it. Those of other folders are forgotten.

    Callables that are loaded already stay as they are, because each project of this worker keeps its own.

    Raises:
        ExecutorUnavailable: they cannot be written.
    """
    others = [Path(folder) for other, folder in _FOLDERS.items() if other != digest]
    for name, module in list(sys.modules.items()):
        if any(file.is_relative_to(folder) for file in files_of(module) for folder in others):
            del sys.modules[name]
    if digest not in _FOLDERS:
        try:
            _FOLDERS[digest] = _extracted(data)
        except OSError as error:
            raise ExecutorUnavailable(
                f"the modules of the project cannot be written on {platform.node()}: {reason(error)}",
                hint="the worker needs a temporary folder with room for them (`TMPDIR`)",
            ) from error
    return _FOLDERS[digest]


def _extracted(data: bytes) -> str:
    folder = os.path.realpath(tempfile.mkdtemp(prefix="flujo-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    return folder


_FOLDERS: dict[str, str] = {}
"""The folders of this process, by the digests of the code in them."""
