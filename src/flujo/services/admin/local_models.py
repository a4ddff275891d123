"""Lists and downloads local models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flujo.agents import local_weights


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of the catalogue, and whether it is downloaded."""

    name: str
    """The name after `local:` in a blueprint."""
    about: str
    license: str
    size: int
    """Bytes of the weights."""
    download_size: int
    """Bytes of their download, which is compressed."""
    path: Path
    """Where the weights are, or will be."""
    present: bool


def list_models(cache_dir: Path) -> list[ModelStatus]:
    """Return every model of the catalogue; no network, no weights read."""
    return [
        ModelStatus(name, model.about, model.license, model.size, model.wheel_size, path, path.is_file())
        for name, model in sorted(local_weights.CATALOGUE.items())
        for path in [local_weights.path_of(name, cache_dir)]
    ]


def pull(name: str, cache_dir: Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the path of the verified weights of `name`; downloads missing or corrupt weights.

    Args:
        name: a model of the catalogue, with or without `local:`.
        cache_dir: the user's cache folder for Flujo.
        on_progress: called with the bytes done and the bytes in total.

    Raises:
        ModelUnavailable: the model is unknown or cannot be downloaded.
        ModelDigestMismatch: the download does not match the published digest.
    """
    return local_weights.ensure(
        name.removeprefix("local:"), cache_dir=cache_dir, on_progress=on_progress, replace=True
    )
