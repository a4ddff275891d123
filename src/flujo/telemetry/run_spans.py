"""Builds the spans of a run from its journal: live from one new entry after another, later from all of them.

A step has one span, from the start of its first attempt to its end; a failed attempt is a span inside it. A
composite has no entry at its start, so its span begins with the first thing inside it. The spans of a
conversation are those of the GenAI conventions: requests and tool calls below the agent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.journal import UNFINISHED, Entry, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.paths import ROOT, StepPath, parent
from flujo.domain.run import ENDS_OF_TASKS, RunStatus
from flujo.domain.trace_ids import span_id, trace_id
from flujo.governance.events import read_error
from flujo.governance.sink import GATE
from flujo.telemetry import names
from flujo.telemetry.messages import messages_of
from flujo.telemetry.span import Link, Span, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.current_step import CurrentStep
    from flujo.domain.journal import RunId
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.remote_work import RemoteWork
    from flujo.domain.run import RunRecord
    from flujo.domain.usage import Usage

MAX_CONTENT = 65_536
"""The maximum number of characters of one content that is sent."""

_REQUESTS = ("turn", "summary")
"""The kinds of entries that are a request to a model."""
_REQUEST = re.compile(r"/(?:turn|summary)\[\d+\]$")
_TOOL_CALL = re.compile(r"/turn\[\d+\]/tool\[\d+\]$")
_NOT_A_NAME = re.compile(r"[\[:!]")
_LAUNCH = b'{"task_id":"'


@dataclass(slots=True)
class _Open:
    """A step of which something has been recorded, and not yet its end."""

    started_at: float
    ended_at: float
    kind: str = ""
    error: ErrorInfo | None = None


class RunSpans:
    """The spans of one run.

    Args:
        record: the run.
        sends_content: whether the spans have prompts, answers, inputs and outputs.
    """

    def __init__(self, record: RunRecord, *, sends_content: bool = False) -> None:
        self.record = record
        self._sends_content = sends_content
        self._trace_id = trace_id(record.run_id)
        self._open: dict[StepPath, _Open] = {}
        self._models: dict[StepPath, str] = {}
        """The models of conversations that have begun."""

    def learned(self, entry: Entry) -> None:
        """Note an entry whose span an earlier execution has sent."""
        if entry.kind is EntryKind.DECISION:
            self._decided(entry)
            return
        self._open_around(entry)
        if entry.status is EntryStatus.FAILED and _is_of_a_step(entry):
            self._failed(entry)

    def recorded(self, entry: Entry) -> Iterator[Span]:
        """Yield the span of a new entry, if it has one."""
        if entry.kind is EntryKind.DECISION:
            self._decided(entry)
            return
        self._open_around(entry)
        if not _is_of_a_step(entry):
            return
        if entry.status is EntryStatus.FAILED:
            yield self._attempt(entry, self._failed(entry))
        else:
            yield self._step(entry)

    def requested(self, step: CurrentStep, number: int, request: ModelRequest) -> Iterator[Span]:
        """Yield the span of a request that a step has made; that of a turn is the span of its entry."""
        if _REQUEST.search(step.path):
            return
        span = self._span(
            step.path,
            f"{names.CHAT} {request.model}",
            request.started_at,
            request.ended_at,
            step.attempt,
            number,
        )
        span.kind, span.parent_id = "client", span_id(step.run_id, step.path)
        span.note(
            {
                **self._operation(names.CHAT),
                names.PROVIDER: request.provider,
                names.REQUEST_MODEL: request.model,
                names.RESPONSE_MODEL: request.answered_by,
                names.RESPONSE_ID: request.response_id,
                names.FINISH_REASONS: None if request.finish_reason is None else [request.finish_reason],
                names.ERROR_TYPE: request.error,
                **_used(request.usage),
            }
        )
        span.error = request.error
        yield span

    def worked(self, step: CurrentStep, work: RemoteWork) -> Iterator[Span]:
        """Yield the span of a unit that a worker has executed for a step, as long as it took there."""
        name, began = f"{paths.name(step.path)} on {work.executor}", work.ended_at - work.seconds
        span = self._span(step.path, name, began, work.ended_at)
        span.span_id, span.parent_id = unit_span_id(step, work.number), span_id(step.run_id, step.path)
        span.kind = "client"
        span.note(
            {
                names.EXECUTOR: work.executor,
                names.HOST: work.host,
                names.PROCESS: work.pid,
                names.ERROR_TYPE: work.error,
            }
        )
        span.error = work.error
        yield span

    def ended(
        self, status: RunStatus, error: ErrorInfo | None, usage: Usage, at: float, links: Sequence[Link] = ()
    ) -> Iterator[Span]:
        """Yield the spans of steps without an end of their own, and that of the run, once it has ended."""
        if status not in ENDS_OF_TASKS:
            return
        if error is not None and error.path:
            self._open_at(StepPath(error.path), at, at).error = error
        for path, left in self._open.items():
            span = self._span(path, paths.name(path), left.started_at, left.ended_at)
            span.note({names.STEP_KIND: left.kind or None})
            inside = error is not None and paths.is_within(StepPath(error.path), path)
            self._fail(span, left.error or (error if inside else None))
            yield span
        self._open.clear()
        yield self._run(status, error, usage, at, links)

    # Kinds of spans --------------------------------------------------------------------------------------

    def _run(
        self, status: RunStatus, error: ErrorInfo | None, usage: Usage, at: float, links: Sequence[Link]
    ) -> Span:
        record = self.record
        name = f"{names.INVOKE_WORKFLOW} {record.pipeline}"
        span = self._span(ROOT, name, record.created_at, max(at, record.created_at))
        span.links = [*links, *_links(record)]
        span.note(
            {
                **self._operation(names.INVOKE_WORKFLOW),
                names.AGENT_NAME: record.pipeline,
                names.PIPELINE: record.pipeline,
                names.RUN_STATUS: str(status),
                names.USER_ID: record.user_id,
                names.PARENT_RUN_ID: None if record.parent is None else record.parent.run_id,
                names.QUEUE: None if record.queued is None else record.queued.queue,
                **_used(usage),
            }
        )
        if self._sends_content:
            span.note({names.STEP_INPUT: _text(record.input)})
        if status in (RunStatus.FAILED, RunStatus.PARKED):
            self._fail(span, error)
            span.error = span.error or str(status)
        return span

    def _attempt(self, entry: Entry, error: ErrorInfo) -> Span:
        """Return the span of a failed attempt, inside that of its step."""
        name = f"{paths.name(entry.path)} attempt"
        span = self._span(entry.path, name, entry.started_at, entry.ended_at, "attempt", entry.attempt)
        span.parent_id = span_id(self.record.run_id, entry.path)
        span.note({names.STEP_KIND: entry.fingerprint, names.ATTEMPT: entry.attempt, **_used(entry.usage)})
        self._fail(span, error)
        return span

    def _step(self, entry: Entry) -> Span:
        begun = self._open.pop(entry.path, None)
        started_at = entry.started_at if begun is None else min(begun.started_at, entry.started_at)
        span = self._span(entry.path, paths.name(entry.path), started_at, entry.ended_at)
        detail = canonical.decode(entry.detail) if entry.detail else {}
        span.note(
            {
                names.STEP_KIND: entry.fingerprint,
                names.ATTEMPT: entry.attempt if entry.attempt > 1 else None,
                **_used(entry.usage),
            }
        )
        if entry.fingerprint in _REQUESTS and _REQUEST.search(entry.path):
            self._describe_request(span, entry)
        elif entry.fingerprint == "tool" and _TOOL_CALL.search(entry.path):
            self._describe_call(span, entry, detail)
        else:
            self._describe_step(span, entry, detail)
        return span

    def _describe_step(self, span: Span, entry: Entry, detail: Mapping[str, Any]) -> None:
        agent = detail.get("agent") or (span.name if entry.path in self._models else None)
        span.note({names.CALLABLE: detail.get("call")})
        if entry.kind is EntryKind.ANSWER:
            span.name = f"pause {span.name}"
        elif agent is not None:
            span.name = f"{names.INVOKE_AGENT} {agent}"
            asked = detail.get("asked") or self._models.pop(entry.path, None)
            span.note(
                {
                    **self._operation(names.INVOKE_AGENT),
                    names.AGENT_NAME: agent,
                    **_asked(asked),
                    names.RESPONSE_MODEL: detail.get("model"),
                }
            )
        if entry.output is not None and entry.output.startswith(_LAUNCH):
            task: RunId = canonical.decode(entry.output)["task_id"]
            span.links = [Link(trace_id(task), span_id(task, ROOT))]
        if self._sends_content:
            span.note({names.STEP_INPUT: _text(entry.input), names.STEP_OUTPUT: _text(entry.output)})

    def _describe_request(self, span: Span, entry: Entry) -> None:
        said = canonical.decode(entry.output or b"{}")
        said = said if isinstance(said, dict) else {}  # that of a summary is a text
        asked = _asked(self._models.get(_enclosing(entry.path, entry.fingerprint)))
        model = asked.get(names.REQUEST_MODEL) or said.get("model_name")
        span.name, span.kind = f"{names.CHAT} {model}" if model else names.CHAT, "client"
        reason = said.get("finish_reason")
        span.note(
            {
                **self._operation(names.CHAT),
                names.PROVIDER: said.get("provider_name"),
                **asked,
                names.RESPONSE_MODEL: said.get("model_name"),
                names.RESPONSE_ID: said.get("provider_response_id"),
                names.FINISH_REASONS: [reason] if reason else None,
            }
        )
        if self._sends_content:
            given = canonical.decode(entry.input or b"[]")
            span.note({names.INPUT_MESSAGES: _messages(given), names.OUTPUT_MESSAGES: _messages([said])})

    def _describe_call(self, span: Span, entry: Entry, detail: Mapping[str, Any]) -> None:
        tool, outcome = detail.get("tool", span.name), detail.get("outcome")
        span.name = f"{names.EXECUTE_TOOL} {tool}"
        span.note(
            {
                **self._operation(names.EXECUTE_TOOL),
                names.TOOL_NAME: tool,
                names.TOOL_TYPE: "function",
                names.TOOL_EFFECT: detail.get("effect"),
                names.TOOL_OUTCOME: outcome,
            }
        )
        if outcome == "error":
            span.error = outcome
            span.note({names.ERROR_TYPE: "tool_error"})
        if self._sends_content:
            span.note({names.TOOL_ARGUMENTS: _text(entry.input), names.TOOL_RESULT: _text(entry.output)})

    # Open steps ------------------------------------------------------------------------------------------

    def _decided(self, entry: Entry) -> None:
        """Note the beginning of a conversation, or of a tool that consists of steps."""
        if entry.fingerprint == "granular" and entry.attempt > 0:
            model = canonical.decode(entry.output or b"{}").get("model")
            self._models[entry.path] = str(model or "")
        elif entry.fingerprint != "tool" or entry.attempt != 0:
            return
        self._open_around(entry)
        self._open_at(entry.path, entry.started_at, entry.ended_at).kind = entry.fingerprint

    def _open_around(self, entry: Entry) -> None:
        path = _enclosing(entry.path, entry.fingerprint)
        while path:
            self._open_at(path, entry.started_at, entry.ended_at)
            path = _enclosing(path)

    def _open_at(self, path: StepPath, started_at: float, ended_at: float) -> _Open:
        known = self._open.setdefault(path, _Open(started_at, ended_at))
        known.started_at = min(known.started_at, started_at)
        known.ended_at = max(known.ended_at, ended_at)
        return known

    def _failed(self, entry: Entry) -> ErrorInfo:
        error = read_error(entry.error or b"{}")
        known = self._open_at(entry.path, entry.started_at, entry.ended_at)
        known.kind, known.error = entry.fingerprint, error
        return error

    # Parts of spans --------------------------------------------------------------------------------------

    def _span(self, path: StepPath, name: str, started_at: float, ended_at: float, *parts: str | int) -> Span:
        run_id = self.record.run_id
        above = _enclosing(path, "turn" if _REQUEST.search(path) else "")
        attributes: dict[str, Value] = {names.RUN_ID: run_id}
        if path:
            attributes[names.STEP_PATH] = paths.shown(path)
        return Span(
            trace_id=self._trace_id,
            span_id=span_id(run_id, path, *parts),
            parent_id=span_id(run_id, above) if path else None,
            name=name,
            started_at=started_at,
            ended_at=max(started_at, ended_at),
            attributes=attributes,
        )

    def _operation(self, name: str) -> dict[str, Value | None]:
        return {names.OPERATION: name, names.CONVERSATION_ID: self.record.run_id}

    def _fail(self, span: Span, error: ErrorInfo | None) -> None:
        """Mark a span as failed. The message is content, because errors quote values."""
        if error is None:
            return
        span.error = GATE.text(error.message) if self._sends_content else f"{error.code} {error.type}".strip()
        span.note({names.ERROR_TYPE: error.type or error.code, names.ERROR_CODE: error.code})


def spans_of(record: RunRecord, entries: Sequence[Entry], *, sends_content: bool = False) -> list[Span]:
    """Return the spans of a recorded run; one that has not ended has no span of its own yet.

    The requests of a step that asks an agent once are not in the journal: their tokens are at the step.
    """
    spans = RunSpans(record, sends_content=sends_content)
    found = [span for entry in entries for span in spans.recorded(entry)]
    error = None if record.error is None else read_error(record.error)
    return [*found, *spans.ended(record.status, error, record.usage, record.updated_at)]


def unit_span_id(step: CurrentStep, number: int) -> int:
    """Return the id of the span of a unit, which is known when the unit is sent."""
    return span_id(step.run_id, step.path, "unit", step.attempt, number)


def _links(record: RunRecord) -> list[Link]:
    """Return the spans of other runs from which this run comes."""
    if record.parent is None:
        return []
    above = record.parent
    return [Link(trace_id(above.run_id), span_id(above.run_id, above.path))]


def _is_of_a_step(entry: Entry) -> bool:
    """Return whether an entry is the end or an attempt of a step, and not of an iteration or a branch."""
    if entry.fingerprint in _REQUESTS and _REQUEST.search(entry.path):
        return True
    return entry.fingerprint != UNFINISHED and _is_step(entry.path)


def _is_step(path: StepPath) -> bool:
    """Return whether a path is that of a step or of a tool call."""
    return bool(_TOOL_CALL.search(path)) or not _NOT_A_NAME.search(path.rpartition("/")[2])


def _enclosing(path: StepPath, kind: str = "") -> StepPath:
    """Return the nearest step or tool call around a path; `ROOT` for the run.

    Iterations, items and branches have no spans: they may end without an entry.
    """
    own = _TOOL_CALL.search(path) or (_REQUEST.search(path) if kind in _REQUESTS else None)
    if own is not None:
        return StepPath(path[: own.start()])
    above = parent(path)
    while above and not _is_step(above):
        above = parent(above)
    return above


def _asked(model: str | None) -> dict[str, Value | None]:
    """Return the attributes of a requested model, which is written `provider:model`."""
    if not model:
        return {}
    provider, colon, name = model.partition(":")
    return {names.PROVIDER: provider, names.REQUEST_MODEL: name} if colon else {names.REQUEST_MODEL: model}


def _used(usage: Usage) -> dict[str, Value | None]:
    if not (usage.requests or usage.total_tokens):
        return {}
    return {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.COST: usage.cost_usd,
        names.UNPRICED: usage.unpriced_requests or None,
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else _bounded(value.decode())


def _messages(recorded: Any) -> str:
    known = [each for each in recorded if isinstance(each, dict)] if isinstance(recorded, list) else []
    return _bounded(canonical.encode(messages_of(known)).decode())


def _bounded(text: str) -> str:
    text = GATE.text(text)
    return text if len(text) <= MAX_CONTENT else f"{text[:MAX_CONTENT]}… ({len(text):,} characters)"
