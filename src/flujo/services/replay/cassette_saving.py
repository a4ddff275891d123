"""Makes a cassette of a recorded run: from transcripts, turns, tool calls, calls of steps, and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.closure import Closure
from flujo.domain import canonical, paths
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus
from flujo.domain.paths import StepPath
from flujo.domain.recorded_run import launched_by
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps.step import SummaryStep, ToolCallStep, TurnStep
from flujo.domain.threads import only_fields
from flujo.exceptions import CassetteRefused
from flujo.governance.sink import GATE
from flujo.services.replay.cassette import Answer, Call, Cassette, Conversation, Exchange, Expected
from flujo.services.replay.cassette_messages import answered, sent, split
from flujo.services.replay.recording import recorded_family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.journal import Entry, RunId
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import Pause
    from flujo.domain.steps import BaseStep
    from flujo.domain.store import RunSource
    from flujo.services.workspace import Workspace

_ANSWERED = (PauseKind.QUESTION, PauseKind.APPROVAL, PauseKind.LIMIT, PauseKind.EVENT)
"""The kinds of pauses whose answers come from outside."""


async def cassette_of(ws: Workspace, source: RunSource, run_id: RunId) -> Cassette:
    """Return a completed run of a blueprint, with its background tasks, as a cassette; secrets are masked.

    Raises:
        RunNotFound: there is no such run.
        CorruptState: a row or a content is damaged or missing.
        CassetteRefused: the run has not completed, is one of Python, or has kept no transcripts.
        BlueprintError: its blueprint does not pass the checks of this Flujo.
    """
    family = await recorded_family(source, run_id)
    run = family[0]
    if run.record.status is not RunStatus.COMPLETED:
        raise _refused(run, f"it is {run.record.status}, and a cassette is of a completed run")
    if run.record.parent is not None:
        raise _refused(run, f"it is a background task of run {run.record.parent.run_id}; save that run")
    manifest = canonical.decode(run.blobs[run.record.closure])
    if "files" not in manifest:
        raise _refused(run, "its pipeline is written in Python; test it with `flujo.testing.ScriptedAgent`")
    closure = Closure.load(run.blobs[run.record.closure], run.blobs)
    pipeline = ws.load_pinned(closure).pipeline
    tree = dict(pipeline.walk())
    conversations: list[Conversation] = []
    calls: list[Call] = []
    answers: list[Answer] = []
    for each in family:
        taping = _Taping(each, tree)
        conversations += taping.conversations()
        calls += taping.calls()
        answers += taping.answers()
    return Cassette(
        blueprint=closure.entry,
        name=pipeline.name,
        digest=run.record.closure,
        overrides=closure.overrides,
        run_id=run.run_id,
        input=GATE.data(canonical.decode(run.record.input)),
        context=GATE.data(only_fields(canonical.decode(run.record.context))),
        conversations=tuple(conversations),
        calls=tuple(calls),
        answers=tuple(answers),
        expect=Expected(output=(GATE.data(canonical.decode(run.record.output or b"null")),)),
    )


class _Taping:
    """What of one run goes into a cassette."""

    def __init__(self, run: RecordedRun, tree: Mapping[StepPath, BaseStep]) -> None:
        self._run = run
        self._tree = tree
        origin = run.record.parent
        self._task = "" if origin is None else origin.path
        self._inside = "" if origin is None else origin.entry.rpartition("/")[0]
        launches = {canonical.encode({"task_id": each}) for each in launched_by(run.run_id, run.entries)}
        self._done = [
            each
            for each in run.entries
            if each.status is EntryStatus.COMPLETED and each.output not in launches  # the task's run has it
        ]

    def answers(self) -> Iterator[Answer]:
        """Yield the answers from outside, in the order of the questions."""
        for pause in self._run.pauses:
            if pause.answer is not None and not pause.void and pause.kind in _ANSWERED:
                yield Answer(at=pause.pause_id, value=GATE.data(_answer(pause)), task=self._task)

    def calls(self) -> Iterator[Call]:
        """Yield the calls of steps and of tools, in the order in which they ended."""
        for entry in self._done:
            if entry.kind is not EntryKind.WORK:
                continue
            target = canonical.decode(entry.detail or b"{}").get("call")
            if entry.fingerprint == ToolCallStep.kind:
                yield from self._tool_call(entry)
            elif target is not None:
                given, result = _value(entry.input), _value(entry.output)
                yield Call(at=entry.path, name=target, given=given, result=result)
        for entry, said in self._transcripts():
            yield from _calls_in(entry.path, said["messages"])

    def _tool_call(self, entry: Entry) -> Iterator[Call]:
        detail = canonical.decode(entry.detail or b"{}")
        outcome = detail.get("outcome", "result")
        if outcome in ("refused", "denied"):
            return  # no call was made
        given, result = _value(entry.input), _value(entry.output)
        name = detail.get("tool", "")
        yield Call(at=entry.path, name=name, given=given, result=result, is_tool=True, outcome=outcome)

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations of steps that ask an agent once, then those in turns."""
        for entry, said in self._transcripts():
            detail = canonical.decode(entry.detail or b"{}")
            yield Conversation(
                at=entry.path,
                model=detail.get("asked", ""),
                answered_by=detail.get("model"),
                instructions=_masked(said["instructions"]),
                exchanges=_exchanges(said["messages"]),
            )
        for path in self._in_turns():
            yield self._conversation(path)

    def _transcripts(self) -> Iterator[tuple[Entry, Any]]:
        for entry in self._done:
            detail = canonical.decode(entry.detail or b"{}")
            if TRANSCRIPT in detail:
                yield entry, canonical.decode(self._run.blobs[detail[TRANSCRIPT]])
            elif entry.kind is EntryKind.WORK and self._asks_agent(entry):
                raise _refused(
                    self._run,
                    f"`{entry.path}` has kept no transcript; `[journal] transcripts` must not be 'off'",
                )

    def _asks_agent(self, entry: Entry) -> bool:
        """Return whether an entry is that of a step which asks an agent once."""
        step = self._step(entry.path)
        is_own = step is not None and entry.fingerprint == step.kind == "step"
        return is_own and isinstance(getattr(step, "agent", None), AgentSpec | OneOf)

    def _in_turns(self) -> list[str]:
        """Return the paths of the conversations in turns, in the order in which they began."""
        return list(
            dict.fromkeys(_above(each.path) for each in self._done if each.fingerprint == TurnStep.kind)
        )

    def _conversation(self, path: str) -> Conversation:
        turns = [
            each for each in self._done if each.fingerprint == TurnStep.kind and _above(each.path) == path
        ]
        summaries = [
            each for each in self._done if each.fingerprint == SummaryStep.kind and _above(each.path) == path
        ]
        agents = [each for each in self._run.entries if each.path == path and each.kind is EntryKind.DECISION]
        traits = canonical.decode(agents[-1].output or b"{}") if agents else {}
        detail = canonical.decode(turns[0].detail or b"{}")
        messages = [message for turn in turns for message in (*_value(turn.input), _value(turn.output))]
        return Conversation(
            at=path,
            model=traits.get("model", ""),
            answered_by=detail.get("model"),
            instructions=_masked(traits.get("instructions")),
            exchanges=_exchanges(messages),
            summaries=tuple(_text(_value(each.output)) for each in summaries),
        )

    def _step(self, path: StepPath) -> BaseStep | None:
        place = paths.without_counts(path)
        return self._tree.get(StepPath(f"{self._inside}/{place}") if self._inside else place)


def _above(path: str) -> str:
    """Return the path of a conversation from that of one of its turns or summaries."""
    return path.rpartition("/")[0]


def _exchanges(messages: Sequence[Any]) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(tuple(GATE.data(sent(requests))), tuple(GATE.data(answered(response))))
        for requests, response in split(messages)
    )


def _calls_in(path: StepPath, messages: Sequence[Any]) -> Iterator[Call]:
    """Yield the tool calls of a conversation within one attempt."""
    asked: list[Any] = []
    for message in messages:
        if message["kind"] == "response":
            asked = [part for part in answered(message) if "call" in part]
            continue
        results = [part for part in message["parts"] if part["part_kind"] == "tool-return"]
        for call, result in zip(asked, results, strict=False):
            if result.get("outcome", "success") != "failed":  # which was not made, or not in time
                yield Call(
                    at=path,
                    name=call["call"],
                    given=GATE.data(call["arguments"]),
                    result=GATE.data(result["content"]),
                    is_tool=True,
                    outcome="result" if result.get("outcome", "success") == "success" else "retry",
                )


def _answer(pause: Pause) -> Any:
    """Return the answer to a question; the digest of an approval is another one in each run."""
    value = canonical.decode(pause.answer or b"null")
    is_bound = pause.kind is PauseKind.APPROVAL and isinstance(value, dict)
    return {key: each for key, each in value.items() if key != "digest"} if is_bound else value


def _value(data: bytes | None) -> Any:
    return GATE.data(canonical.decode(data)) if data is not None else None


def _masked(text: str | None) -> str | None:
    return None if text is None else GATE.result(text)


def _text(message: Any) -> str:
    if isinstance(message, str):
        return message
    return "".join(part["text"] for part in answered(message) if "text" in part)


def _refused(run: RecordedRun, why: str) -> CassetteRefused:
    return CassetteRefused(f"run {run.run_id} cannot be made a cassette: {why}", run_id=run.run_id)
