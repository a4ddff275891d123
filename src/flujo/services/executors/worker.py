"""Executes units on a worker: the other side of every executor. Nothing here reads or writes the journal."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import threading
import time
from collections import deque
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.agents.function import FunctionAgent
from flujo.agents.thread_pool import LazyItems
from flujo.blueprint.sources.callables import load_callable
from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.context_references import BLOBS
from flujo.domain.current_step import CURRENT_STEP
from flujo.domain.executor import CodeExit
from flujo.domain.wording import size
from flujo.engine.failed_calls import Verdict, verdict
from flujo.exceptions import CallableError, CodeDiffers, ResultRefused
from flujo.governance.logs import logger
from flujo.services.binding.blob_references import RunBlobs
from flujo.services.executors.code import code_digest
from flujo.services.executors.wire import (
    MAX_LINES,
    Line,
    ProjectOnWorker,
    decoded_unit,
    error_data,
    other_versions,
    to_install,
)
from flujo.services.project.files import ProjectFiles
from flujo.services.project.imports import importable
from flujo.services.project.user_code import UserCode
from flujo.services.resources import entered_resources
from flujo.state.providers import open_provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.executor import Unit
    from flujo.domain.models import AppResources

_NODE = platform.node()
_LINES: ContextVar[deque[Line] | None] = ContextVar("_LINES", default=None)
"""The log lines of the unit that the current code belongs to."""


def execute(unit: bytes, project: bytes) -> bytes:
    """Execute one unit, and return its answer. It never raises.

    Args:
        unit: a unit, from `wire.encoded_unit`.
        project: a project, from `ProjectOnWorker.encoded`.

    Returns:
        Canonical JSON: `output` or `error`; `lines`, the log lines of the callable; and `ran`, the host, the
        process and the seconds.
    """
    host = _host(project)
    return asyncio.run_coroutine_threadsafe(host.answer(unit), host.loop).result()


async def answer(unit: bytes, project: bytes) -> bytes:
    """Execute one unit without blocking this event loop; see `execute`. Cancelling abandons the unit."""
    host = _host(project)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(host.answer(unit), host.loop))


def _beside(lines: deque[Line], began: float) -> dict[str, Any]:
    """Return what an answer has beside the output or the error."""
    return {"lines": list(lines), "ran": [_NODE, os.getpid(), time.monotonic() - began]}


class _Host:
    """What a worker process keeps for a project: an event loop, the resources, providers and callables."""

    def __init__(self, project: ProjectOnWorker) -> None:
        self.project = project
        self.root = Path(project.root)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="flujo-worker", daemon=True).start()
        self._exits = AsyncExitStack()
        self._resources: AppResources | None = None
        self._opening = asyncio.Lock()
        self._agents: dict[str, tuple[FunctionAgent, str]] = {}
        logging.root.addHandler(_Lines())

    @cached_property
    def blobs(self) -> RunBlobs:
        """The project's state providers, opened by this process."""
        named = self.project.state_providers
        providers = {name: open_provider(name, url, self.root) for name, url in named.items()}
        return RunBlobs(providers, ProjectFiles(self.root, ()), self.loop)

    async def answer(self, data: bytes) -> bytes:
        """Return the answer to a unit, on the event loop of this host; see `execute`."""
        lines: deque[Line] = deque(maxlen=MAX_LINES)
        began = time.monotonic()
        try:
            output = await self._executed(*decoded_unit(data), lines)
            return canonical.encode({"output": output, **_beside(lines, began)})
        except BaseException as error:  # noqa: BLE001 - foreign code; the process of the run gets the exception
            raised = error.raised if isinstance(error, CodeExit) else error
            found = UserCode(self.root)(raised)
            means = Verdict.NOT_SENT if isinstance(raised, CodeDiffers) else verdict(raised)
            return canonical.encode({"error": error_data(raised, found, means), **_beside(lines, began)})

    async def _executed(self, unit: Unit, code: str | None, lines: deque[Line]) -> Any:
        """Return the output of a unit, or raise what its callable raised."""
        agent = self._agent(unit.target, code)
        BLOBS.set(self.blobs)
        CURRENT_STEP.set(unit.step)
        _LINES.set(lines)
        if unit.traceparent is not None:
            from flujo.telemetry.remote_parent import make_parent  # loads OpenTelemetry's API

            make_parent(unit.traceparent)
        given = canonical.decode(unit.data)
        ask = Ask(
            data=None if unit.by_name else given,
            arguments=given if unit.by_name else None,
            resources=await self._made() if agent.wants_resources else None,
            idempotency_key=unit.idempotency_key,
        )
        return self._checked((await agent.ask(ask)).output, unit.target)

    def _checked(self, output: Any, target: str) -> Any:
        """Return an output that may travel.

        Raises:
            ResultRefused: it is not JSON, or too large.
        """
        if isinstance(output, LazyItems):
            raise ResultRefused(f"the result of `{target}` is an iterator, which cannot leave its process")
        count, most = len(canonical.encode(output, what=f"the result of `{target}`")), self.project.max_result
        if count > most:
            raise ResultRefused(
                f"the result of `{target}` has {size(count)} as JSON, and `max_result` of the executor is "
                f"{size(most)}"
            )
        return output

    def _agent(self, target: str, code: str | None) -> FunctionAgent:
        """Return the callable, after a check that it is the code of the process of the run.

        Raises:
            CodeDiffers: it is not.
        """
        if target not in self._agents:
            self._require_versions()
            importable(self.root)
            fn = self._loaded(target)
            self._agents[target] = FunctionAgent(fn, name=target), code_digest(fn, self.root)
        agent, ours = self._agents[target]
        if code is not None and code != ours:
            raise CodeDiffers(
                f"the worker on {platform.node()} has loaded another version of the code of `{target}` "
                f"({ours[:12]}) than the process of the run ({code[:12]})"
            )
        return agent

    def _loaded(self, target: str) -> Callable[..., Any]:
        try:
            return load_callable(target, self.project.allow_callables)
        except CallableError as error:  # the process of the run has loaded it
            raise CodeDiffers(f"the worker on {platform.node()} has other code: {error}") from error

    def _require_versions(self) -> None:
        here = {"python": platform.python_version(), "flujo": version("flujo")}
        if differs := other_versions(self.project, here):
            raise CodeDiffers(f"the worker on {platform.node()} {differs}", hint=to_install(self.project))

    async def _made(self) -> AppResources | None:
        """Return the resources, made at the first use and closed at the end of this process."""
        if self.project.resources is None:
            return None
        async with self._opening:
            if self._resources is None:
                entering = entered_resources(self.root, self.project.resources)
                self._resources = await self._exits.enter_async_context(entering)
            return self._resources

    def close(self) -> None:
        """Close the resources."""
        asyncio.run_coroutine_threadsafe(self._exits.aclose(), self.loop).result(timeout=5)


_HOSTS: dict[bytes, _Host] = {}
_LOCK = threading.Lock()


def _host(project: bytes) -> _Host:
    with _LOCK:
        if project not in _HOSTS:
            made = ProjectOnWorker.decoded(project)
            logging.root.setLevel(made.log_level)
            _HOSTS[project] = _Host(made)
        return _HOSTS[project]


def close_hosts() -> None:
    """Close the resources of every project of this process."""
    with _LOCK:
        for host in _HOSTS.values():
            try:
                host.close()
            except Exception:  # noqa: BLE001 - foreign code, at the end of a process
                logger("flujo.executors").exception("closing the resources failed")
        _HOSTS.clear()


class _Lines(logging.Handler):
    """Keeps the log lines of units, to be logged in the process of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line, if it belongs to a unit."""
        lines = _LINES.get()
        if lines is not None:
            text = self.format(record)
            lines.append((record.name, record.levelno, text[:2000]))
