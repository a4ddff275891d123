"""The models of this machine, for the command line: which there are, which are here, and how to fetch one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flujo.agents import local_weights


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model of the catalogue, and whether its file is on this machine."""

    name: str
    """What a blueprint says after `local:`."""
    about: str
    license: str
    size: int
    """Bytes of the weights."""
    path: Path
    """Where the weights are, or will be."""
    present: bool


def list_models(cache_dir: Path) -> list[ModelStatus]:
    """Return every model of the catalogue; asks nobody and reads no weights."""
    return [
        ModelStatus(name, model.about, model.license, model.size, path, path.is_file())
        for name, model in sorted(local_weights.CATALOGUE.items())
        for path in [local_weights.path_of(name, cache_dir)]
    ]


def pull(name: str, cache_dir: Path, on_progress: Callable[[int, int], None] | None = None) -> Path:
    """Return the path of the verified weights of `name`, fetched when they are not here or not as published.

    Args:
        name: a model of the catalogue, with or without `local:`.
        cache_dir: the user's cache folder for Flujo.
        on_progress: told the bytes that are here and how many there are in all.

    Raises:
        ModelUnavailable: no such model, or it cannot be fetched.
        ModelDigestMismatch: what came is not what was published.
    """
    return local_weights.ensure(
        name.removeprefix("local:"), cache_dir=cache_dir, on_progress=on_progress, replace=True
    )
