"""A recorded run as a request to a collector, from the database alone."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from flujo.services.replay.sources import named_run
from flujo.telemetry.otlp_json import otlp_json
from flujo.telemetry.run_spans import spans_of

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace


async def otlp_of(workspace: Workspace, run: str) -> dict[str, Any]:
    """Return the spans of a run in the JSON of OTLP, with content as `[telemetry]` says; sends nothing.

    Args:
        workspace: the project.
        run: an id, a unique prefix of one, `@last`, or the file of an export.

    Raises:
        RunNotFound: no run, or more than one, matches.
    """
    source, record = await named_run(workspace, run)
    wanted = workspace.project.settings.telemetry
    spans = spans_of(record, await source.entries(record.run_id), sends_content=wanted.content)
    return otlp_json(spans, service_name=wanted.service_name, version=version("flujo"))
