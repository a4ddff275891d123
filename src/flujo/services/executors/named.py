"""The executors of a project, by their names in flujo.toml. Each is opened at its first use."""

from __future__ import annotations

import importlib
import logging
import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.executor import DEFAULT_EXECUTOR
from flujo.domain.wording import suggest
from flujo.exceptions import ExecutorUnavailable, SettingsError
from flujo.services.executors.cluster import Cluster
from flujo.services.executors.wire import ProjectOnWorker

if TYPE_CHECKING:
    from flujo.domain.executor import Executor
    from flujo.services.executors.cluster import ClusterConnection
    from flujo.services.project.project import Project
    from flujo.settings_executors import ExecutorTable

_CLUSTERS = {"dask": "DaskConnection", "ray": "RayConnection"}
"""Kinds whose workers belong to a cluster → the class of the connection, in the module of the kind."""


class Executors:
    """What `[executors.NAME]` of a project names."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._opened: dict[str, Executor] = {}
        self._codes: dict[str, str] = {}

    def named(self, name: str) -> Executor | None:
        """Return an executor, without connecting; None for `threads` when flujo.toml does not name it.

        Raises:
            SettingsError: flujo.toml has no executor of this name.
            ExecutorUnavailable: its package is not installed.
        """
        tables = self._project.settings.executors
        if name not in self._opened:
            if name not in tables:
                if name == DEFAULT_EXECUTOR:
                    return None
                raise SettingsError(
                    f"there is no [executors.{name}] in flujo.toml",
                    hint=suggest(name, [DEFAULT_EXECUTOR, *tables], what="there are", cutoff=0.6)
                    or f"write a table [executors.{name}]",
                    key=f"executors.{name}",
                )
            self._opened[name] = self._made(name, tables[name])
        return self._opened[name]

    def _made(self, name: str, table: ExecutorTable) -> Executor:
        if table.kind in _CLUSTERS:
            return self._cluster(name, table)
        size = table.size or os.cpu_count() or 1
        if table.kind == "threads":
            from flujo.services.executors.local_threads import Threads

            return Threads(name, size)
        from flujo.services.executors.processes import Processes

        return Processes(name, size, self._on_worker(table), self._code_of)

    def _cluster(self, name: str, table: ExecutorTable) -> Executor:
        """Return the adapter of a cluster; the module of its connection alone needs the package."""
        try:
            connections = importlib.import_module(f"flujo.services.executors.{table.kind}_connection")
        except ModuleNotFoundError as error:
            raise ExecutorUnavailable(
                f"executor {name!r} needs the package `{error.name}`, which is not installed",
                hint=f"`{command('pip', 'install', f'flujo[{table.kind}]')}`",
                executor=name,
            ) from error
        kind: type[ClusterConnection] = getattr(connections, _CLUSTERS[table.kind])
        return Cluster(name, kind, table, self._on_worker(table), self._code_of)

    def _on_worker(self, table: ExecutorTable) -> ProjectOnWorker:
        settings = self._project.settings
        return ProjectOnWorker(
            root=str(self._project.root),
            allow_callables=settings.blueprints.allow_callables,
            resources=settings.project.resources,
            state_providers=dict(settings.state_providers),
            max_result=table.max_result,
            flujo=version("flujo"),
            log_level=logging.root.getEffectiveLevel(),
        )

    def _code_of(self, target: str) -> str:
        """Return the digest of a callable's code, as this process has loaded it."""
        if target not in self._codes:
            from flujo.blueprint.sources.callables import load_callable
            from flujo.services.executors.code import code_digest

            fn = load_callable(target, self._project.settings.blueprints.allow_callables)
            self._codes[target] = code_digest(fn, self._project.root)
        return self._codes[target]

    async def aclose(self) -> None:
        """Close those that were opened. Idempotent."""
        while self._opened:
            _, executor = self._opened.popitem()
            await executor.aclose()
