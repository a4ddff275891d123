"""A project at work: its store, resources, caches and agents, each opened once and closed once.

Commands that only look at runs import this module, so the engine, the agents, the compiler and SQLAlchemy
(160 ms) are imported by the methods that need them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.domain.arguments import put
from flujo.domain.forks import NO_FORK
from flujo.domain.usage import UsageLimits
from flujo.exceptions import SettingsError
from flujo.governance.redactor import passwords
from flujo.governance.sink import GATE
from flujo.services.checks.locking import lock_digest, require_match
from flujo.services.checks.validation import compiled, refusal
from flujo.services.executors.named import Executors
from flujo.services.lifetime import ClosedAtExit, Lifetime
from flujo.services.mcp_servers import McpServers, locked_servers
from flujo.services.project.files import ProjectFiles
from flujo.services.project.imports import importable
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.project.system import SystemClock, SystemRandom
from flujo.services.resources import entered_resources
from flujo.services.telemetry import telemetry_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from flujo.agents.settings import AgentSettings
    from flujo.blueprint.closure import Closure
    from flujo.blueprint.compiler import Compiled
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.sources.source_files import Source
    from flujo.domain.context_references import StateProvider
    from flujo.domain.mcp import ToolServer
    from flujo.domain.models import AppResources, PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.store import DurableStore
    from flujo.engine.answer_cache import AnswerCache
    from flujo.services.project.project import Project
    from flujo.settings import Settings
    from flujo.telemetry.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A blueprint that passed its checks: its tree, and the bytes that it was made from."""

    path: str
    root: Path
    """The folder of its project."""
    environment: str
    """The `[env.NAME]` that it was read in."""
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

    def handed_out(self) -> Pipeline:
        """Return its pipeline, for which `blueprint_of` returns this blueprint."""
        put(self.pipeline, _blueprint=self)
        return self.pipeline


def blueprint_of(pipeline: Pipeline) -> Blueprint | None:
    """Return the blueprint that a pipeline was read from; None for one that is written or changed in Python.

    A change makes another pipeline: `dataclasses.replace` and `>>` copy its fields, and this is not a field.
    """
    found: Blueprint | None = vars(pipeline).get("_blueprint")
    return found


_MOST_READ = 16
"""How many pinned blueprints are kept that are only read, such as for pages of runs."""


class Workspace(ClosedAtExit):
    """A project at work. Making one costs nothing: the store is opened at its first use."""

    def __init__(self, project: Project, *, creates: bool = True) -> None:
        """Set the project; opens nothing.

        Args:
            project: the project.
            creates: whether the store may create a SQLite database that does not exist.
        """
        self.project = project
        self._creates = creates
        self.clock = SystemClock()
        self.random = SystemRandom()
        self.on_download: Callable[[int, int], None] | None = None
        """Called from a thread with the bytes done and in total while a local model is downloaded."""
        self._store: DurableStore | None = None
        self._resources: AppResources | None = None
        self._cache: AnswerCache | None = None
        self._read: dict[str, Blueprint] = {}
        """The blueprints that were read last, by the digests of their closures; the newest is the last."""
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self._lifetime = Lifetime(f"the workspace of project {project.root.name!r}")

    async def aclose(self) -> None:
        """Close everything that was opened: the resources first, then the store. Idempotent."""
        await self._lifetime.close(self._end_work)
        await self.mcp.aclose()
        await self.executors.aclose()

    def before_close(self, end: Callable[[], Awaitable[None]]) -> None:
        """Await `end` before anything of this workspace is closed."""
        self._ends.append(end)

    async def _end_work(self) -> None:
        for end in self._ends:
            await end()

    async def store(self) -> DurableStore:
        """Return the project's store, opened and (for SQLite) migrated.

        Raises:
            StateError: it cannot be opened, or its schema is not the one this Flujo needs.
            DatabaseMissing: it does not exist, and this workspace creates none.
            RunnerClosed: the workspace is closed.
        """
        self._lifetime.require_open()
        if self._store is None:
            if not self._creates:
                self.project.require_database()
            async with self._lifetime.opening() as exits:
                if self._store is None:
                    self._store = await open_store(self.project.state_uri, self.project.settings)
                    exits.push_async_callback(self._store.aclose)
        return self._store

    @property
    def recovery_policy(self) -> RecoveryPolicy:
        """How a process of this project recovers runs, as its settings say."""
        settings = self.project.settings.settings
        return RecoveryPolicy(every_s=settings.recovery_s, max_recoveries=settings.max_recoveries)

    @property
    def caches_in_state(self) -> bool:
        """Whether answers of cached steps are kept in the state database: `[cache] backend`."""
        return self.project.settings.cache.backend == "state"

    async def answer_cache(self) -> AnswerCache:
        """Return the answers of cached steps, in the state database or in memory as `[cache] backend` says.

        All runs of this workspace share it, so that concurrent runs do the work of one step once.

        Raises:
            StateError: the database cannot be opened.
            RunnerClosed: the workspace is closed.
        """
        from flujo.engine.answer_cache import AnswerCache
        from flujo.state.memory_cache import MemoryCache

        store = await self.store() if self.caches_in_state else None
        self._lifetime.require_open()
        if self._cache is None:
            self._cache = AnswerCache(MemoryCache() if store is None else store.cache())
        return self._cache

    async def resources(self) -> AppResources | None:
        """Return what `[project] resources` makes, entered once and exited by `aclose`; None without one.

        Raises:
            CallableError: it cannot be imported.
            SettingsError: it is not an async context manager, raises, or yields no `AppResources`.
        """
        target = self.project.settings.project.resources
        if target is None:
            return None
        await self.store()  # opened before the resources, so it is closed after them
        async with self._lifetime.opening() as exits:
            if self._resources is None:
                self._resources = await exits.enter_async_context(
                    entered_resources(self.project.root, target)
                )
            return self._resources

    @cached_property
    def telemetry(self) -> Telemetry | None:
        """What sends traces and metrics of its runs; None when nothing is sent.

        Raises:
            TelemetryUnavailable: flujo.toml names a collector, and the extra `otel` is not installed.
            SettingsError: a header needs a variable that is not set.
        """
        return telemetry_of(self.project.settings)

    @cached_property
    def mcp(self) -> McpServers:
        """The MCP servers that `[mcp.NAME]` names, none of them started."""
        return McpServers(self.project, lambda: locked_servers(self.project))

    @cached_property
    def executors(self) -> Executors:
        """The executors that `[executors.NAME]` names, none of them opened."""
        return Executors(self.project)

    @property
    def files(self) -> ProjectFiles:
        """The files that steps may send to models."""
        root, folders = self.project.root, self.project.settings.project.file_folders
        return ProjectFiles(root, tuple(root / one for one in folders))

    @cached_property
    def state_providers(self) -> Mapping[str, StateProvider]:
        """What `[state_providers]` names, by id.

        Raises:
            SettingsError: one of them cannot be opened.
        """
        from flujo.state.providers import open_provider

        named = self.project.settings.state_providers
        return {name: open_provider(name, url, self.project.root) for name, url in named.items()}

    def load(self, path: str, *, overrides: Mapping[str, str] | None = None) -> Blueprint:
        """Return the blueprint at `path` (relative to the project's root) as it is on disk.

        Raises:
            BlueprintError: it does not pass its checks; `diagnostics` and `sources` say why.
            LockMismatch: `[lockfile] enabled` is set, and it is not what flujo.lock holds.
        """
        blueprint = self._blueprint(path, compiled(self.project, path, overrides, reads_secrets=True))
        find_lock = require_match if self.project.settings.lockfile.enabled else lock_digest
        return replace(blueprint, lock_digest=find_lock(self.project, path, blueprint.pipeline))

    def load_from(self, path: str, source: Source) -> Blueprint:
        """Return the blueprint at `path` in another source than the project's folder; no lock is required.

        Raises:
            BlueprintError: it does not pass its checks.
        """
        return self._blueprint(path, compiled(self.project, path, source=source, reads_secrets=True))

    def load_pinned(self, closure: Closure, *, is_read: bool = False) -> Blueprint:
        """Return the blueprint that a run was accepted with.

        Args:
            closure: its files.
            is_read: whether it is only read. Then the project needs neither its callables nor its servers,
                and the last ones are kept.

        Raises:
            BlueprintError: it does not pass its checks.
        """
        if not is_read:
            return self._pinned(closure, is_read=False)
        found = self._read.pop(closure.digest, None) or self._pinned(closure, is_read=True)
        self._read[closure.digest] = found
        if len(self._read) > _MOST_READ:
            del self._read[next(iter(self._read))]
        return found

    def _pinned(self, closure: Closure, *, is_read: bool) -> Blueprint:
        from flujo.blueprint.sources.source_files import PinnedSource

        # The run was accepted: stricter settings and other models of today do not apply to it.
        source = PinnedSource(closure.files)
        result = compiled(
            self.project,
            closure.entry,
            closure.overrides,
            source=source,
            models={},
            strict=False,
            knows_servers=not is_read,
            knows_targets=False,
            knows_models=False,
            allows_all=is_read,
        )
        return replace(self._blueprint(closure.entry, result), closure=closure)

    def _blueprint(self, path: str, result: Compiled) -> Blueprint:
        if result.pipeline is None:
            raise refusal(path, result)
        return Blueprint(
            path,
            self.project.root,
            self.project.environment,
            result.pipeline,
            result.closure,
            result.diagnostics,
            result.sources,
        )

    def bind(self, pipeline: Pipeline, context_model: type[PipelineContext] | None = None) -> Binding:
        """Return `pipeline` made runnable. This is the one place where its callables are imported.

        Args:
            pipeline: the tree.
            context_model: the class of its context, instead of the one that the tree names.

        Raises:
            CallableError | ProviderUnavailable: a callable or provider is not available.
        """
        with NO_FORK:
            from flujo.services.binding.binding import PipelineBinding

            settings = self.project.settings
            if self.project.config_file is not None:  # otherwise no callable is allowed
                importable(self.project.root)
            bound = PipelineBinding(
                allow_callables=settings.blueprints.allow_callables,
                agent_settings=agent_settings(settings, self.on_download, self.mcp.named),
                context_model=context_model,
                executors=self.executors.named,
            )
            bound.bind(pipeline)
            return bound


def checked_limits(limits: Any, what: str) -> UsageLimits:
    """Return what a run may use at most.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(limits, UsageLimits):
        return limits
    raise SettingsError(
        f"{what} is {limits!r}, not a `UsageLimits`",
        hint="write `UsageLimits(total_cost_usd_limit=1.0, …)`",
    )


def agent_settings(
    settings: Settings,
    on_download: Callable[[int, int], None] | None = None,
    mcp_server: Callable[[str], ToolServer] | None = None,
) -> AgentSettings:
    """Return what agents need to know of the settings and the environment."""
    from flujo.agents.settings import AgentSettings
    from flujo.settings import environment

    return AgentSettings(
        coercion_level=settings.aros.coercion_tolerant_level,
        structured_output=settings.aros.structured_output_default,
        repaired_arguments=settings.aros.repaired_arguments,
        environment=environment(),
        cache_dir=settings.cache_home,
        providers=settings.named_providers,
        prices=settings.own_prices,
        on_download=on_download,
        mcp_server=mcp_server,
    )


async def open_store(uri: str, settings: Settings) -> DurableStore:
    """Return the store at `uri`, ready to be used."""
    with NO_FORK:
        from flujo.state.store import SqlStateStore

    GATE.know(passwords(uri), of="the password of the database")
    pool = settings.settings
    return await SqlStateStore.open(
        uri,
        schema=pool.postgres_schema,
        pool_min=pool.postgres_pool_min,
        pool_max=pool.postgres_pool_max,
        synchronous="NORMAL" if pool.durability == "relaxed" else "FULL",
        lease_s=pool.lease_s,
        renew_s=pool.lease_s / 3,
        indexed_metadata=settings.state.indexed_metadata,
        keys=settings.key_ring(),
    )
