"""Makes a cassette of a recorded run: from transcripts, turns, tool calls, calls of steps, and answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.agents.messages import calls_in
from flujo.blueprint.closure import Closure
from flujo.domain import canonical, paths
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus
from flujo.domain.paths import StepPath, branch, child, shown
from flujo.domain.recorded_run import launched_by
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.steps import cached_step
from flujo.domain.steps.step import SummaryStep, ToolCallStep, TurnStep
from flujo.domain.threads import only_fields
from flujo.domain.values import CallableRef
from flujo.engine.agent_choice import CHOICE
from flujo.exceptions import CassetteRefused
from flujo.governance.sink import GATE
from flujo.services.replay.cassette import Answer, Call, Cassette, Conversation, Exchange, Expected
from flujo.services.replay.cassette_errors import error_of, unprefixed
from flujo.services.replay.cassette_messages import answered, sent, split
from flujo.services.replay.cassette_servers import servers_of
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

_WITHHELD = ("length", "content_filter")
"""Why a response was cut off or withheld, so that it is an error and not an answer."""


@dataclass(frozen=True, slots=True)
class Taped:
    """A cassette, and the answers for which it has no request yet."""

    cassette: Cassette
    cached: Mapping[str, Any]
    """The outputs that steps took from the cache, by path. What these steps ask is not recorded."""


async def taped(ws: Workspace, source: RunSource, run_id: RunId) -> Taped:
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
    cached: dict[str, Any] = {}
    for each in family:
        taping = _Taping(each, tree)
        cached |= taping.cached()
        conversations += taping.conversations()
        calls += taping.calls()
        answers += taping.answers()
    cassette = Cassette(
        blueprint=closure.entry,
        name=pipeline.name,
        digest=run.record.closure,
        overrides=closure.overrides,
        run_id=run.run_id,
        input=GATE.data(canonical.decode(run.record.input)),
        context=GATE.data(only_fields(canonical.decode(run.record.context))),
        conversations=tuple(conversations),
        calls=tuple(calls),
        servers=servers_of(ws.project, tree.values(), family),
        answers=tuple(answers),
        expect=Expected(output=(GATE.data(canonical.decode(run.record.output or b"null")),)),
    )
    return Taped(cassette, cached)


class _Taping:
    """What of one run goes into a cassette."""

    def __init__(self, run: RecordedRun, tree: Mapping[StepPath, BaseStep]) -> None:
        self._run = run
        self._tree = tree
        origin = run.record.parent
        self._task = "" if origin is None else origin.path
        self._inside = "" if origin is None else origin.entry.rpartition("/")[0]
        launches = {canonical.encode({"task_id": each}) for each in launched_by(run.run_id, run.entries)}
        self._ended = [
            each
            for each in run.entries
            if each.status is not EntryStatus.SKIPPED and each.output not in launches  # the task's run has it
        ]
        """Each attempt, completed or failed: a step that is played fails as often as it did."""

    def answers(self) -> Iterator[Answer]:
        """Yield the answers from outside, in the order of the questions."""
        for pause in self._run.pauses:
            if pause.answer is not None and not pause.void and pause.kind in _ANSWERED:
                yield Answer(at=pause.pause_id, value=GATE.data(_answer(pause)), task=self._task)

    def cached(self) -> Iterator[tuple[str, Any]]:
        """Yield the paths of the steps whose answers came from the cache, and their outputs."""
        for entry in self._ended:
            detail = canonical.decode(entry.detail or b"{}") if entry.kind is EntryKind.DONE else {}
            if detail.get("cached") is not True:
                continue
            step, path = self._step(entry.path), entry.path
            inner = None if step is None else cached_step(step)[0]
            if inner is not None and inner is not step:
                path = child(path, inner.name)
            if getattr(inner, "agent", None) is None and getattr(inner, "call", None) is None:
                why = f"`{shown(path)}` consists of steps, and its output came from the cache"
                raise _refused(self._run, why)
            yield path, _value(entry.output)

    def calls(self) -> Iterator[Call]:
        """Yield the calls of steps and of tools, in the order in which they ended."""
        for entry in self._ended:
            if entry.kind is not EntryKind.WORK or entry.input is None:
                continue
            if entry.fingerprint == ToolCallStep.kind:
                yield from self._tool_call(entry)
            elif (target := self._target(entry)) is not None:
                yield _call(entry, target)
        for entry, said in self._transcripts():
            yield from _calls_in(entry, said["messages"])

    def _target(self, entry: Entry) -> str | None:
        """Return the callable that an attempt has called."""
        if entry.status is EntryStatus.COMPLETED:
            target: str | None = canonical.decode(entry.detail or b"{}").get("call")
            return target
        call = getattr(self._step(entry.path), "call", None)  # a failed attempt does not name it
        return call.target if entry.fingerprint == "step" and isinstance(call, CallableRef) else None

    def _tool_call(self, entry: Entry) -> Iterator[Call]:
        detail = canonical.decode(entry.detail or b"{}")
        outcome = detail.get("outcome", "result")
        if outcome in ("refused", "denied"):
            return  # no call was made
        name = detail.get("tool") or self._tool(entry.path)
        if name is not None:
            yield replace(_call(entry, name), is_tool=True, outcome=outcome)

    def _tool(self, path: StepPath) -> str | None:
        """Return the tool of a call, from the response that has requested it."""
        turn, place = paths.parent(paths.parent(path)), paths.last_count(path) or 0
        response = next(
            (each.output for each in reversed(self._ended) if each.path == turn and each.output), None
        )
        calls = calls_in(canonical.decode(response)) if response is not None else []
        return calls[place].name if place < len(calls) else None

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations of steps that ask an agent once, then those in turns."""
        for entry, said in self._transcripts():
            detail = canonical.decode(entry.detail or b"{}")
            exchanges = _exchanges(said["messages"])
            if entry.status is EntryStatus.FAILED:
                exchanges = self._with_error(entry, exchanges, said["messages"])
            if exchanges:
                yield Conversation(
                    at=entry.path,
                    model=detail.get("asked") or self._model(entry),
                    answered_by=detail.get("model"),
                    instructions=_masked(said["instructions"]),
                    exchanges=exchanges,
                )
        for path in self._in_turns():
            yield self._conversation(path)

    def _transcripts(self) -> Iterator[tuple[Entry, Any]]:
        for entry in self._ended:
            detail = canonical.decode(entry.detail or b"{}")
            if TRANSCRIPT in detail:
                yield entry, canonical.decode(self._run.blobs[detail[TRANSCRIPT]])
            elif (
                entry.kind is EntryKind.WORK
                and entry.status is EntryStatus.COMPLETED
                and self._asks_agent(entry)
            ):
                raise _refused(
                    self._run,
                    f"`{shown(entry.path)}` has kept no transcript; "
                    "`[journal] transcripts` must not be 'off'",
                )

    def _with_error(
        self, entry: Entry, exchanges: tuple[Exchange, ...], messages: Sequence[Any]
    ) -> tuple[Exchange, ...]:
        """Return the exchanges of a failed attempt; the last one has failed, unless its answer was read."""
        error = error_of(entry)
        unanswered = _unanswered(messages)
        if unanswered:
            return (*exchanges, Exchange(tuple(GATE.data(sent(unanswered))), error=error))
        if error is not None and exchanges and messages[-1].get("finish_reason") in _WITHHELD:
            cut = unprefixed(error, self._agent_of(entry).name)
            return (*exchanges[:-1], replace(exchanges[-1], answer=(), error=cut))
        return exchanges

    def _model(self, entry: Entry) -> str:
        return self._agent_of(entry).model

    def _agent_of(self, entry: Entry) -> AgentSpec:
        """Return the agent that an attempt has asked."""
        agent = getattr(self._step(entry.path), "agent", None)
        if isinstance(agent, OneOf):
            chosen = [each.output for each in self._run.entries if each.path == branch(entry.path, CHOICE)]
            agent = agent.one_of[canonical.decode(chosen[-1] or b"null")]
        if not isinstance(agent, AgentSpec):
            why = f"`{shown(entry.path)}` is not a step of its blueprint that asks an agent"
            raise _refused(self._run, why)
        return agent

    def _asks_agent(self, entry: Entry) -> bool:
        """Return whether an entry is that of a step which asks an agent once."""
        step = self._step(entry.path)
        is_own = step is not None and entry.fingerprint == step.kind == "step"
        return is_own and isinstance(getattr(step, "agent", None), AgentSpec | OneOf)

    def _in_turns(self) -> list[str]:
        """Return the paths of the conversations in turns, in the order in which they began."""
        return list(
            dict.fromkeys(_above(each.path) for each in self._ended if each.fingerprint == TurnStep.kind)
        )

    def _conversation(self, path: str) -> Conversation:
        parts = [each for each in self._ended if _above(each.path) == path]
        turns = [each for each in parts if each.fingerprint == TurnStep.kind]
        summaries = [
            each
            for each in parts
            if each.fingerprint == SummaryStep.kind and each.status is EntryStatus.COMPLETED
        ]
        agents = [each for each in self._run.entries if each.path == path and each.kind is EntryKind.DECISION]
        traits = canonical.decode(agents[-1].output or b"{}") if agents else {}
        answers = [each for each in turns if each.status is EntryStatus.COMPLETED]
        detail = canonical.decode(answers[0].detail or b"{}") if answers else {}
        return Conversation(
            at=path,
            model=traits.get("model", ""),
            answered_by=detail.get("model"),
            instructions=_masked(traits.get("instructions")),
            exchanges=tuple(_turn(each) for each in turns if each.input is not None),
            summaries=tuple(_text(_value(each.output)) for each in summaries),
        )

    def _step(self, path: StepPath) -> BaseStep | None:
        """Return the step at a path, also that of a tool which consists of steps."""
        place = paths.without_counts(path)
        place = StepPath(f"{self._inside}/{place}") if self._inside else place
        if place in self._tree or _TOOL not in place:
            return self._tree.get(place)
        # The path of a call does not have the name of the tool, which the path in the tree has.
        wanted = re.compile(re.escape(place).replace(re.escape(_TOOL), r"/[^/:]+"))
        return next((step for at, step in self._tree.items() if wanted.fullmatch(at)), None)


_TOOL = "/turn/tool"
"""The place of a tool call below its step, without numbers."""


def _above(path: str) -> str:
    """Return the path of a conversation from that of one of its turns or summaries."""
    return path.rpartition("/")[0]


def _call(entry: Entry, name: str) -> Call:
    given, error = _value(entry.input), error_of(entry)
    if error is not None:
        return Call(at=entry.path, name=name, given=given, error=error)
    return Call(at=entry.path, name=name, given=given, result=_value(entry.output))


def _turn(entry: Entry) -> Exchange:
    """Return the exchange of an attempt of a turn."""
    said = tuple(GATE.data(sent(_value(entry.input))))
    if entry.status is EntryStatus.FAILED:
        return Exchange(said, error=error_of(entry))
    return Exchange(said, tuple(GATE.data(answered(_value(entry.output)))))


def _exchanges(messages: Sequence[Any]) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(tuple(GATE.data(sent(requests))), tuple(GATE.data(answered(response))))
        for requests, response in split(messages)
    )


def _unanswered(messages: Sequence[Any]) -> Sequence[Any]:
    """Return the messages after the last response."""
    answers = [number for number, each in enumerate(messages) if each["kind"] == "response"]
    return messages[answers[-1] + 1 :] if answers else messages


def _calls_in(entry: Entry, messages: Sequence[Any]) -> Iterator[Call]:
    """Yield the tool calls of a conversation within one attempt.

    Those of the last response have no results if one of them has failed the attempt; each gets its error.
    """
    asked: list[Any] = []
    for message in messages:
        if message["kind"] == "response":
            asked = [part for part in answered(message) if "call" in part]
            continue
        results = [part for part in message["parts"] if part["part_kind"] == "tool-return"]
        for call, result in zip(asked, results, strict=False):
            yield Call(
                at=entry.path,
                name=call["call"],
                given=GATE.data(call["arguments"]),
                result=GATE.data(result["content"]),
                is_tool=True,
                # A call that was refused is not made when it is played either.
                outcome="result" if result.get("outcome", "success") == "success" else "retry",
            )
        asked = []
    error = error_of(entry)
    if error is not None:
        for call in asked:
            given = GATE.data(call["arguments"])
            yield Call(at=entry.path, name=call["call"], given=given, error=error, is_tool=True)


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
