"""The wiring: a project's settings become a store, agents and a clock, each built once and closed once."""

from __future__ import annotations

import asyncio
import inspect
import os
import secrets
import sys
import time
from collections import deque
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from flujo.domain.journal import RunId
from flujo.domain.models import AppResources
from flujo.domain.usage import UsageLimits
from flujo.exceptions import FlujoError, SettingsError
from flujo.services.checks.validation import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from flujo.agents.chat import AgentSettings
    from flujo.blueprint.closure import Closure
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.sources.source_files import Source
    from flujo.domain.context_references import StateProvider
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, CacheBackend
    from flujo.domain.store import DurableStore
    from flujo.services.project.project import Project
    from flujo.services.runs.recovery import RecoveryPolicy
    from flujo.settings import Settings


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


_RUN_IDS: deque[RunId] = deque()
"""Some to come: asking the system for each would hand the interpreter's lock to another thread each time."""
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_RUN_IDS.clear)


class SystemRandom:
    """The randomness of this machine."""

    def run_id(self) -> RunId:
        """Return 128 random bits in hexadecimal."""
        while True:
            try:
                return _RUN_IDS.popleft()
            except IndexError:
                drawn = secrets.token_hex(16 * 64)
                _RUN_IDS.extend(RunId(drawn[start : start + 32]) for start in range(0, len(drawn), 32))

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return secrets.randbelow(1 << 30) / (1 << 30)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A blueprint that passed its checks: its tree, and the bytes that it was made from."""

    path: str
    pipeline: Pipeline
    closure: Closure
    diagnostics: tuple[Diagnostic, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    lock_digest: str | None = None
    """The digest of the lock that holds it as it is; None when none does."""

    @property
    def name(self) -> str:
        """The name that it gives itself."""
        return self.pipeline.name


class Workspace:
    """A project at work. Opening one costs nothing: the store is opened when it is first asked for."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.clock = SystemClock()
        self.random = SystemRandom()
        self.on_download: Callable[[int, int], None] | None = None
        """Told the bytes done and in all while a local model is fetched; called from a thread."""
        self._store: DurableStore | None = None
        self._resources: AppResources | None = None
        self._opening = asyncio.Lock()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def store(self) -> DurableStore:
        """Return the project's store, opened and (for SQLite) migrated.

        Raises:
            StateError: it cannot be opened, or its schema is not the one this Flujo needs.
        """
        async with self._opening:
            if self._store is None:
                self._store = await open_store(self.project.state_uri, self.project.settings)
            return self._store

    def importable(self) -> None:
        """Let modules of the project be imported."""
        importable(self.project.root)

    @property
    def recovery_policy(self) -> RecoveryPolicy:
        """How this project's settings want runs looked after that nobody attends to."""
        from flujo.services.runs.recovery import RecoveryPolicy

        settings = self.project.settings.settings
        return RecoveryPolicy(every_s=settings.recovery_s, max_recoveries=settings.max_recoveries)

    @property
    def caches_in_state(self) -> bool:
        """Whether answers of cached steps are kept in the state database: `[cache] backend`."""
        return self.project.settings.cache.backend == "state"

    async def cache(self) -> CacheBackend | None:
        """Return the cache in the state database, None when the project keeps answers in memory.

        Raises:
            StateError: the database cannot be opened.
        """
        if not self.caches_in_state:
            return None
        return (await self.store()).cache()

    async def resources(self) -> AppResources | None:
        """Return what `[project] resources` makes, entered once and exited by `aclose`; None without one.

        Raises:
            CallableError: it cannot be imported.
            SettingsError: it is no async context manager, raises, or gives no `AppResources`.
        """
        target = self.project.settings.project.resources
        if target is None:
            return None
        async with self._opening:
            if self._resources is None:
                made = await self._exits.enter_async_context(_managed(self.project.root, target))
                self._resources = checked_resources(made, f"what `[project] resources = {target!r}` gives")
            return self._resources

    @cached_property
    def state_providers(self) -> Mapping[str, StateProvider]:
        """What `[state_providers]` names, by id.

        Raises:
            SettingsError: one of them cannot be opened.
        """
        from flujo.state.providers import open_provider

        named = self.project.settings.state_providers
        return {name: open_provider(name, url, self.project.root) for name, url in named.items()}

    async def aclose(self) -> None:
        """Close what was opened: the resources first, then the store. Idempotent."""
        exits, self._exits = self._exits, AsyncExitStack()
        store, self._store, self._resources = self._store, None, None
        try:
            await exits.aclose()
        finally:
            if store is not None:
                await store.aclose()

    def load(self, path: str, *, overrides: Mapping[str, str] | None = None) -> Blueprint:
        """Return the blueprint at `path` (relative to the project's root) as it is on disk.

        Raises:
            BlueprintError: it does not pass its checks; `diagnostics` and `sources` say why.
            LockMismatch: `[lockfile] enabled` is set, and it is not what flujo.lock holds.
        """
        from flujo.blueprint.sources.source_files import FileSource

        source = FileSource(self.project.root)
        blueprint = self.compile(path, source, overrides or {}, models=self.project.settings.models)
        from flujo.services.checks.locking import lock_digest, require_match

        asked = require_match if self.project.settings.lockfile.enabled else lock_digest
        return replace(blueprint, lock_digest=asked(self.project, path, blueprint.pipeline))

    def compile(
        self,
        path: str,
        source: Source,
        overrides: Mapping[str, str],
        *,
        models: Mapping[str, str] | None = None,
    ) -> Blueprint:
        """Return the blueprint at `path` in `source`: the files on disk, or those that a run has pinned.

        Raises:
            BlueprintError: it does not pass its checks.
        """
        from flujo.blueprint.compiler import compile_blueprint
        from flujo.blueprint.sources.source_files import FileSource

        settings = self.project.settings
        compiled = compile_blueprint(
            path,
            source,
            allow_callables=settings.blueprints.allow_callables,
            models=models,
            overrides=overrides,
            # What a run was accepted with is not judged again by stricter settings, or by new rules.
            strict=settings.strict_dsl and isinstance(source, FileSource),
            is_bounded=bool(settings.budgets.limits),
        )
        if compiled.pipeline is None:
            raise refusal(path, compiled)
        return Blueprint(path, compiled.pipeline, compiled.closure, compiled.diagnostics, compiled.sources)

    def bind(self, pipeline: Pipeline) -> Binding:
        """Return `pipeline` made runnable. This is the one place where its callables are imported.

        Raises:
            CallableError | ProviderUnavailable: something it names is not to be had.
        """
        from flujo.services.binding.binding import PipelineBinding

        importable(self.project.root)
        settings = self.project.settings
        bound = PipelineBinding(
            allow_callables=settings.blueprints.allow_callables,
            agent_settings=agent_settings(settings, self.on_download),
        )
        bound.bind(pipeline)
        return bound


def checked_resources(resources: Any, what: str) -> AppResources:
    """Return the application's resources.

    Raises:
        SettingsError: they are something else.
    """
    if isinstance(resources, AppResources):
        return resources
    kind = resources.__name__ if isinstance(resources, type) else type(resources).__name__
    raise SettingsError(
        f"{what} is `{kind}`, and resources are an object of a subclass of `AppResources`: callables ask "
        "for them by that class",
        hint="write `class MyResources(AppResources):` with a field for each, and give `MyResources(…)`",
    )


def checked_limits(limits: Any, what: str) -> UsageLimits:
    """Return what a run may use at most.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(limits, UsageLimits):
        return limits
    raise SettingsError(
        f"{what} is {limits!r}, and limits are a `UsageLimits`: a misspelt one would limit nothing",
        hint="write `UsageLimits(total_cost_usd_limit=1.0, …)`",
    )


@asynccontextmanager
async def _managed(root: Path, target: str) -> AsyncIterator[Any]:
    """Enter and exit what `[project] resources` names. The setting itself is what allows importing it."""
    from flujo.blueprint.sources.callables import load_callable

    importable(root)
    make = load_callable(target, (target.partition(":")[0],))
    try:
        async with _manager(make(), target) as resources:
            yield resources
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
        made.close()  # it will never be awaited, and Python would warn of that somewhere else
    raise SettingsError(
        f"`[project] resources = {target!r}` gives {type(made).__name__}, which is no async context manager",
        hint="write `@asynccontextmanager` above `async def make_resources():`, and `yield` them",
        target=target,
    )


def importable(root: Path) -> None:
    """Let modules of the project be imported."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def agent_settings(
    settings: Settings, on_download: Callable[[int, int], None] | None = None
) -> AgentSettings:
    """Return what agents need to know of the settings and the environment."""
    from flujo.agents.chat import AgentSettings
    from flujo.settings import environment

    return AgentSettings(
        coercion_level=settings.aros.coercion_tolerant_level,
        structured_output=settings.aros.structured_output_default,
        environment=environment(),
        cache_dir=settings.cache_home,
        on_download=on_download,
    )


async def open_store(uri: str, settings: Settings) -> DurableStore:
    """Return the store at `uri`, ready to be used."""
    from flujo.state.store import SqlStateStore

    pool = settings.settings
    return await SqlStateStore.open(
        uri,
        pool_min=pool.postgres_pool_min,
        pool_max=pool.postgres_pool_max,
        synchronous="NORMAL" if pool.durability == "relaxed" else "FULL",
        lease_s=pool.lease_s,
        renew_s=pool.lease_s / 3,
    )
