"""The shapes of JSON data: what `views` and `trace_views` return, and the OpenAPI document describes.

Times are in seconds since the epoch.
"""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class UsageData(TypedDict):
    """What models and tools have used."""

    input_tokens: int
    output_tokens: int
    requests: int
    """How many requests to models."""
    tool_calls: int
    cost_usd: float | None
    """Null when a request had no known price."""


class FrameData(TypedDict):
    """The place in the code of the project where an error was raised."""

    file: str
    line: int
    function: str
    source: str
    """The text of the line; empty if it cannot be read."""


class ErrorData(TypedDict):
    """Why a step or a run failed."""

    code: str
    """For `flujo explain`."""
    message: str
    hint: str | None
    """What to do."""
    type: str
    """The name of the exception."""
    path: str
    """The step that failed."""
    retryable: bool
    frame: NotRequired[FrameData]
    traceback: NotRequired[str | None]
    """The digest of its traceback."""
    is_handled: NotRequired[bool]
    """Whether the `on_failure` or `finally` of the run has been executed."""


class PauseData(TypedDict):
    """A question, or a wait for a time, an event or tasks."""

    pause_id: str
    kind: str
    """`question`, `approval` or `doubt` for instance."""
    message: str
    answer_schema: Any
    """The JSON Schema of its answer; null for any answer."""
    deadline_at: float | None
    digest: NotRequired[str]
    """What the answer to an approval must name."""
    event: NotRequired[str]
    """The name of the event that is waited for."""
    key: NotRequired[str | None]
    """The key with which it may come from anywhere."""
    asked_at: NotRequired[float | None]


class ClaimData(TypedDict):
    """Who works on a question."""

    by: str
    at: float
    until: float


class EscalationData(TypedDict):
    """Who has left a question to others."""

    by: str
    at: float
    reason: str


class QuestionData(PauseData):
    """An open question, with what tells its run."""

    run_id: str
    pipeline: str
    user_id: str | None
    metadata: dict[str, Any]
    queue: str | None
    usage: UsageData
    """What the run had used when it paused."""
    claim: ClaimData | None
    escalation: EscalationData | None
    risk: str
    """What a wrong answer can do: `high`, `medium` or `low`."""
    cursor: str
    """Its place in the list."""


class SettledData(TypedDict):
    """The answer that a run has and no process has taken yet."""

    pause_id: str
    by: str | None
    answered_at: float | None


class RunData(TypedDict):
    """A run."""

    run_id: str
    pipeline: str
    status: str
    display_status: str
    """The status, or what it alone does not tell: `orphaned`, `answered`, `in_doubt`."""
    kind: str
    """`run`, or `task` for one that a step has launched in the background."""
    parent: str | None
    """The run that has launched it."""
    parent_path: str | None
    """The step that has launched it."""
    continues: str | None
    """The run that it continues."""
    user_id: str | None
    metadata: dict[str, Any]
    usage: UsageData
    created_at: float
    updated_at: float
    deadline_at: float | None
    """The earliest deadline of its open questions."""
    ends_by: float | None
    """The deadline of the run itself."""
    error: ErrorData | None
    """Why it failed, was cancelled or was parked."""
    questions: list[PauseData]
    """The open ones."""
    waits: list[PauseData]
    """The times, events and tasks that it waits for."""
    answer: SettledData | None
    queue: str | None
    """The queue whose workers execute it."""
    cursor: str
    """Its place in the list."""


class CallData(TypedDict):
    """A call that was made, and whose outcome is not recorded."""

    path: str
    tool: str
    key: str
    sent_at: float | None


class StepData(TypedDict):
    """A step that has ended."""

    path: str
    kind: str
    status: str
    attempt: int
    seconds: float
    usage: UsageData


class ResultData(TypedDict):
    """The result of a run, or why there is none yet."""

    run_id: str
    status: str
    output: Any
    """Of a completed run."""
    error: ErrorData | None
    pauses: list[PauseData]
    """What the run waits for."""
    ends_by: float | None
    usage: UsageData
    unconfirmed: UsageData
    """The most that requests without a recorded result may have used; not in `usage`."""
    in_doubt: list[CallData]
    steps: list[StepData]
    """Those of this execution, if the process that answers has executed the run."""


class LineData(TypedDict):
    """A line of the log."""

    offset: int
    """Its place in the log; several lines about one step have the same."""
    at: float
    kind: str
    path: str
    attempt: int
    seconds: float
    usage: UsageData
    error: ErrorData | None
    value: Any
    text: str
    provisional: bool
    """Whether the journal does not have it."""
    number: int
    """Of a provisional line; otherwise 0."""


class TakenData(TypedDict):
    """A run that has taken an event, and the step that waited for it."""

    run_id: str
    path: str


class DeliveryData(TypedDict):
    """What has become of an event."""

    event_id: str
    taken: list[TakenData]
    repeated: bool
    """Whether it had been sent before, so that nothing was done."""


class EvaluationData(TypedDict):
    """A score."""

    key: str
    run_id: str
    path: str
    """The step whose output is scored; empty for that of the run."""
    pipeline: str
    user_id: str | None
    closure: str
    """The digest of the files of the run."""
    lock_digest: str | None
    evaluator: str
    version: str
    score: float | None
    """From 0, the worst, to 1; null with an `error`."""
    reason: str | None
    error: str | None
    by: str
    """A model, a callable, an expression or a person."""
    cost_usd: float | None
    created_at: float


class MessageData(TypedDict):
    """A message about a run, to a `[notify.NAME]`."""

    id: int
    webhook_id: str
    """The same for each try."""
    run_id: str | None
    target: str
    event: str
    state: str
    """`pending`, `delivered` or `given_up`."""
    tries: int
    error: str | None
    """Of the last try."""
    payload: Any
    created_at: float
    next_try_at: float | None
    delivered_at: float | None
    given_up_at: float | None


class ActData(TypedDict):
    """Something that a person or a program has done with a run."""

    at: float | None
    by: str
    via: str
    """`cli`, `api` or `web` for instance."""
    verb: str
    object: str
    before: Any
    after: Any


class AnsweredData(PauseData):
    """A question or a wait, open or settled."""

    open: bool
    answer: Any
    by: str | None
    answered_at: float | None


class EventData(TypedDict):
    """An event that is kept for a run."""

    event_id: str
    event: str
    key: str | None
    payload: Any
    by: str
    at: float | None


class SentData(TypedDict):
    """A call that was announced before it was made."""

    key: str
    state: str
    sends: int
    """How often it was sent."""
    sent_at: float | None


class RanData(TypedDict):
    """Where a callable of an attempt was executed, and for how long."""

    executor: str
    host: str
    pid: int
    seconds: float


class AttemptData(TypedDict):
    """An attempt of a step."""

    attempt: int
    status: str
    error: ErrorData | None
    began_at: float
    seconds: float
    usage: UsageData
    ran: list[RanData]


class LaunchedData(TypedDict):
    """A background task that a step has launched."""

    run_id: str
    status: str
    trace: NodeData | None


class NodeData(TypedDict):
    """A step, with those inside it."""

    path: str
    """Empty for the run itself."""
    kind: str
    status: str
    attempts: int
    decision: Any
    """The name of a branch, or whether a loop has ended."""
    state: str | None
    """Of a state machine."""
    input: Any
    files: list[dict[str, Any]]
    """The files that were sent to its model."""
    call: SentData | None
    output: Any
    error: ErrorData | None
    not_cached: str | None
    """Why the cache was not used."""
    fell_back: ErrorData | None
    """The error before its fallback."""
    agent: dict[str, Any] | None
    chosen: str | None
    """The agent that was chosen from a list."""
    usage: UsageData
    unconfirmed: UsageData
    """The most that requests without a recorded result may have used; not in `usage`."""
    seconds: float
    """From its beginning to its end, with waits."""
    work_seconds: float
    """Those of its attempts alone."""
    attempts_made: list[AttemptData]
    failed_attempts: list[AttemptData]
    began_at: float | None
    changed: list[Any]
    """What it has changed in the context."""
    model: str | None
    task: LaunchedData | None
    detail: dict[str, Any]
    transcripts: list[dict[str, Any]]
    children: list[NodeData]


class TraceData(NodeData):
    """A run, or a step of it."""

    run_id: str
    lock_digest: str | None
    warnings: list[str]
    acts: list[ActData]


class TaskData(RunData):
    """A run with its history."""

    input: Any
    context: Any
    output: Any
    continued_as: str | None
    """The run that continues it."""
    states: dict[str, str]
    """The states of its state machines, by their paths."""
    pauses: list[AnsweredData]
    events: list[EventData]
    in_doubt: list[CallData]
    acts: list[ActData]
    children: list[RunData]
    """The background tasks that it has launched."""
    trace: NodeData
