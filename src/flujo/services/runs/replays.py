"""Replays runs with the files that they have pinned, or with those on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.journal import RunId
from flujo.exceptions import StateError
from flujo.services.checks.pipeline_checks import check_pipeline
from flujo.services.mcp_servers import locked_servers
from flujo.services.recorded.recorded_binding import SilentBinding, recorded_binding
from flujo.services.recorded.replay import Replayed, diverged, replay
from flujo.services.runs.run_services import is_python, pinned_blueprint, pinned_closure

if TYPE_CHECKING:
    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.run import RunRecord
    from flujo.domain.store import RunSource
    from flujo.exceptions import ReplayDiverged
    from flujo.services.recorded.replay import Replay
    from flujo.services.workspace import Workspace


async def replay_run(
    ws: Workspace,
    source: RunSource,
    run_id: str,
    *,
    until: str | None = None,
    path: str | None = None,
    is_elsewhere: bool = False,
) -> Replay:
    """Replay a run of a blueprint; nothing is called, and nothing is written.

    Args:
        ws: the project, whose code has the types and the tools of agents.
        source: has everything that is recorded of the run.
        run_id: its id.
        until: a step, after which the replay ends.
        path: the blueprint on disk that is compared with the record. Default: what the run has pinned.
        is_elsewhere: whether the run may be of another project, so that code which is not here is not needed.

    Raises:
        StateError: the run is of a pipeline that is written in Python.
        BlueprintError: the blueprint does not pass its checks.
        what `replay` raises.
    """
    record = await source.run(RunId(run_id))
    if path is not None:
        pipeline = ws.load(path, overrides=await _overrides(source, record)).pipeline
    elif is_python(record):
        raise StateError(
            f"run {record.run_id} is of the pipeline {record.pipeline!r}, which is written in Python",
            hint="replay it where that pipeline is built: `await runner.replay_from_trace(run_id)`",
        )
    else:
        pipeline = (await pinned_blueprint(ws, source, record, is_read=True)).pipeline
    subject = replayed(ws, pipeline, is_pinned=path is None, is_elsewhere=is_elsewhere)
    return await replay(source, record.run_id, subject, until=until)


def replayed(
    ws: Workspace,
    pipeline: Pipeline,
    *,
    is_pinned: bool,
    is_elsewhere: bool = False,
    context_model: type[PipelineContext] | None = None,
    binding: Binding | None = None,
) -> Replayed:
    """Return a pipeline as it is replayed; `binding` has its agents, when the caller has bound them already.

    With `is_elsewhere`, tools and types whose code is not here are left out of the comparison.

    Raises:
        PipelineError: it has an error.
        CallableError: a type or the tool of an agent cannot be imported.
    """
    output = check_pipeline(pipeline)
    absent: tuple[str, ...] = ()
    if binding is None:
        recorded = recorded_binding(ws, pipeline, context_model, is_elsewhere=is_elsewhere)
        binding, absent = recorded, tuple(sorted(recorded.absent))
    else:
        binding = SilentBinding(binding)
    return Replayed(
        pipeline=pipeline,
        binding=binding,
        absent=absent,
        is_pinned=is_pinned,
        servers=frozenset(locked_servers(ws.project)),
        load_output=None if output is None else output.load,
    )


def difference_in(found: Replay) -> ReplayDiverged:
    """Return the error about the first difference of a replay that has found one."""
    return diverged(found.result.run_id, found.differences[0])


async def _overrides(source: RunSource, record: RunRecord) -> dict[str, str]:
    """Return the `--set` of the run, which apply to the files on disk as well."""
    return {} if is_python(record) else dict((await pinned_closure(source, record)).overrides)
