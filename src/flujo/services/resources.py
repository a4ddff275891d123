"""The resources of an application, as `[project] resources` makes them."""

from __future__ import annotations

import inspect
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from flujo.domain.models import AppResources
from flujo.exceptions import FlujoError, SettingsError
from flujo.services.project.imports import importable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def checked_resources(resources: Any, what: str) -> AppResources:
    """Return the application's resources.

    Raises:
        SettingsError: they are something else.
    """
    if isinstance(resources, AppResources):
        return resources
    kind = resources.__name__ if isinstance(resources, type) else type(resources).__name__
    raise SettingsError(
        f"{what} is `{kind}`, not an instance of a subclass of `AppResources`; callables request "
        "resources by that class",
        hint="write `class MyResources(AppResources):` with a field for each, and pass `MyResources(…)`",
    )


@asynccontextmanager
async def entered_resources(root: Path, target: str) -> AsyncIterator[AppResources]:
    """Enter and exit what `[project] resources` names. The setting itself is what allows importing it.

    Raises:
        CallableError: it cannot be imported.
        SettingsError: it is not an async context manager, raises, or yields no `AppResources`.
    """
    from flujo.blueprint.sources.callables import load_callable

    importable(root)
    make = load_callable(target, (target.partition(":")[0],))
    try:
        async with _manager(make(), target) as resources:
            yield checked_resources(resources, f"what `[project] resources = {target!r}` gives")
    except FlujoError:
        raise
    except Exception as error:
        raise SettingsError(
            f"`[project] resources = {target!r}` raised {type(error).__name__}: {error}", target=target
        ) from error


def _manager(made: Any, target: str) -> AbstractAsyncContextManager[Any]:
    if isinstance(made, AbstractAsyncContextManager):
        return made
    if inspect.iscoroutine(made):
        made.close()  # it is never awaited; without this, Python would warn later
    raise SettingsError(
        f"`[project] resources = {target!r}` returns {type(made).__name__}, not an async context manager",
        hint="write `@asynccontextmanager` above `async def make_resources():`, and `yield` them",
        target=target,
    )
