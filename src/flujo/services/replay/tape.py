"""What a cassette answers while it is played: each exchange and each call once, in the recorded order."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.current_step import CURRENT_STEP
from flujo.domain.wording import json_short
from flujo.exceptions import CassetteMismatch
from flujo.governance.sink import GATE
from flujo.services.replay.cassette import Call, Conversation, Exchange
from flujo.services.replay.cassette_errors import exception_of
from flujo.services.replay.cassette_messages import answered, sent, shown, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.conversations import Message
    from flujo.services.replay.cassette import Cassette, Part


class Playing:
    """A recorded conversation, and how far it is played."""

    def __init__(self, recorded: Conversation) -> None:
        self.recorded = recorded
        self.exchanges = 0
        self.summaries = 0

    @property
    def next(self) -> Exchange | None:
        """The exchange that comes next."""
        left = self.recorded.exchanges[self.exchanges :]
        return left[0] if left else None

    @property
    def answered(self) -> Sequence[Exchange]:
        """The played exchanges that have an answer."""
        return [each for each in self.recorded.exchanges[: self.exchanges] if each.error is None]

    @property
    def has_failed(self) -> bool:
        """Whether its last request has failed."""
        return self.recorded.exchanges[-1].error is not None

    def is_at(self, here: Sequence[str]) -> bool:
        """Return whether it is the conversation of one of these paths."""
        return self.recorded.at in here

    def asks(self, model: str, instructions: str | None, given: tuple[Part, ...]) -> bool:
        """Return whether the next request is this one."""
        same = (self.recorded.model, self.recorded.instructions) == (model, instructions)
        return same and self.next is not None and self.next.send == given


class Tape:
    """Answers for one run. Requests that differ from the recorded ones are collected in `mismatches`."""

    def __init__(self, cassette: Cassette, cached: Mapping[str, Any] | None = None) -> None:
        """Take the answers.

        Args:
            cassette: the recorded ones.
            cached: the outputs of steps that took them from the cache, by path. What such a step asks is not
                recorded: it is taken from the play, and becomes a part of `cassette`.
        """
        self.cassette = cassette
        self._cached = dict(cached or {})
        self.mismatches: list[CassetteMismatch] = []
        self._conversations = [Playing(each) for each in cassette.conversations]
        self._begun: set[int] = set()
        self._calls: dict[tuple[bool, str, bytes], list[Call]] = {}
        for call in cassette.calls:
            self._calls.setdefault(_key(call.name, call.given, is_tool=call.is_tool), []).append(call)
        self._last: dict[tuple[bool, str, bytes], dict[str, Call]] = {}
        """The last call that was answered with each key, by the path that made it."""

    def begin(self, agent: str, model: str, instructions: str | None, messages: Sequence[Message]) -> Playing:
        """Return the recorded conversation whose first prompt is this one.

        Raises:
            CassetteMismatch: no conversation that is left has this model, these instructions and this prompt.
        """
        given, here = _sent(messages), _here()
        asked = (model, instructions, given)
        at = next((each for each in here if each in self._cached), None)
        if at is not None:
            only = Exchange(given, ({"text": _as_text(self._cached[at])},))
            learned = Conversation(at=at, model=model, instructions=instructions, exchanges=(only,))
            self.cassette = replace(self.cassette, conversations=(*self.cassette.conversations, learned))
            return Playing(learned)
        for each in self._conversations:  # its first request failed, and is made again
            is_begun = id(each) in self._begun and 0 < each.exchanges < len(each.recorded.exchanges)
            if is_begun and each.is_at(here) and not each.answered and each.asks(*asked):
                return each
        free = [each for each in self._conversations if id(each) not in self._begun]
        for each in sorted(free, key=lambda each: not each.is_at(here)):
            if each.asks(*asked):
                self._begun.add(id(each))
                return each
        for each in self._conversations:  # more attempts than were recorded
            again = Playing(each.recorded)
            if each.is_at(here) and each.has_failed and again.asks(*asked):
                return again
        raise self._mismatch(self._no_beginning(agent, model, instructions, given, free))

    def continued(self, model: str, instructions: str | None, history: Sequence[Message]) -> Playing | None:
        """Return the conversation that is played as far as `history`; None for another beginning."""
        done = [(_sent(asked), answered(response)) for asked, response in split(history)]
        for each in self._conversations:
            recorded = each.recorded
            before = [(one.send, one.answer) for one in each.answered]
            same = (recorded.model, recorded.instructions) == (model, instructions)
            if same and id(each) in self._begun and before == done:
                return each
        return None

    def answer(self, agent: str, playing: Playing, messages: Sequence[Message]) -> Sequence[Part]:
        """Return the recorded answer to the next request of a conversation.

        Raises:
            CassetteMismatch: the request is another one, or there is none left.
            Exception: the recorded error of the request.
        """
        given, expected, at = _sent(messages), playing.next, playing.recorded.at
        number = playing.exchanges
        if expected is None:
            raise self._mismatch(
                f"agent {agent!r} makes request {number + 1} in `{at}`, and the cassette has {number}"
            )
        if expected.send != given:
            what = f"exchange {number + 1} of `{at}` no longer matches the request of agent {agent!r}"
            raise self._mismatch(_with_diff(what, shown(None, expected.send), shown(None, given)))
        playing.exchanges += 1
        if expected.error is not None:
            raise exception_of(expected.error)
        return expected.answer

    def summary(self, agent: str, playing: Playing) -> str:
        """Return the next recorded summary of a conversation.

        Raises:
            CassetteMismatch: there is none left.
        """
        left = playing.recorded.summaries[playing.summaries :]
        if not left:
            at = playing.recorded.at
            raise self._mismatch(f"agent {agent!r} requests a summary in `{at}`, which has no more")
        playing.summaries += 1
        return left[0]

    def call(self, name: str, given: Any, *, is_tool: bool) -> Call:
        """Return a recorded call: of equal ones that of the current step, the next, or the last again.

        Raises:
            CassetteMismatch: the call is not recorded.
            Exception: the recorded error of the call.
        """
        given = GATE.data(given)
        key, here = _key(name, given, is_tool=is_tool), _here()
        if not is_tool and here[0] in self._cached:
            learned = Call(at=here[0], name=name, given=given, result=self._cached[here[0]])
            self.cassette = replace(self.cassette, calls=(*self.cassette.calls, learned))
            return learned
        left, last = self._calls.get(key, []), self._last.setdefault(key, {})
        mine = next((each for each in left if each.at in here), None)
        found = mine or next((last[at] for at in here if at in last), None) or next(iter(left), None)
        found = found or next(reversed(last.values()), None)
        if found is not None:
            if found in left:
                left.remove(found)
            last[here[0]] = found
            if found.error is not None:
                raise exception_of(found.error)
            return found
        known = [each for each in self.cassette.calls if (each.is_tool, each.name) == (is_tool, name)]
        kind = "tool" if is_tool else "callable"
        if not known:
            raise self._mismatch(
                f"{kind} `{name}` is called with {json_short(given)}, and the cassette has no call of it"
            )
        wanted = canonical.encode(given).decode()
        near = max(known, key=lambda each: _likeness(canonical.encode(each.given).decode(), wanted))
        what = f"the call of {kind} `{name}` at `{near.at}` no longer matches"
        raise self._mismatch(_with_diff(what, _lines(near.given), _lines(given)))

    def server(self, name: str) -> Mapping[str, Any]:
        """Return the schemas of the tools of an MCP server.

        Raises:
            CassetteMismatch: the server is not recorded.
        """
        if name not in self.cassette.servers:
            raise self._mismatch(f"an agent has tools of MCP server {name!r}, and the cassette does not")
        return self.cassette.servers[name]

    @property
    def unused(self) -> list[str]:
        """The paths of recorded conversations that were not begun, or not finished."""
        return [
            each.recorded.at
            for each in self._conversations
            if id(each) not in self._begun or each.next is not None
        ]

    def _no_beginning(
        self,
        agent: str,
        model: str,
        instructions: str | None,
        given: Sequence[Part],
        free: Sequence[Playing],
    ) -> str:
        if not free:
            return f"agent {agent!r} begins a conversation, and no recorded one is left"
        wanted = shown(instructions, given)
        near = max(free, key=lambda each: self._nearness(each, model, wanted)).recorded
        what = f"exchange 1 of `{near.at}` no longer matches the request of agent {agent!r}"
        if near.model != model:
            what += f": the model is `{model}`, and `{near.model}` was recorded"
        return _with_diff(what, shown(near.instructions, near.exchanges[0].send), wanted)

    @staticmethod
    def _nearness(each: Playing, model: str, wanted: Sequence[str]) -> tuple[float, bool]:
        recorded = shown(each.recorded.instructions, each.recorded.exchanges[0].send)
        return _likeness("\n".join(recorded), "\n".join(wanted)), each.recorded.model == model

    def _mismatch(self, message: str) -> CassetteMismatch:
        error = CassetteMismatch(message)
        self.mismatches.append(error)
        return error


def _here() -> tuple[str, ...]:
    """Return the path of the current step, and the path above: a conversation is above its turns."""
    current = CURRENT_STEP.get()
    return ("",) if current is None else (current.path, paths.parent(paths.parent(current.path)))


def _sent(messages: Sequence[Message]) -> tuple[Part, ...]:
    """Return what requests say, without secrets, as a cassette has it."""
    return tuple(GATE.data(sent(messages)))


def _as_text(output: Any) -> str:
    """Return the answer of a model that gives this output."""
    return output if isinstance(output, str) else canonical.encode(output).decode()


def _key(name: str, given: Any, *, is_tool: bool) -> tuple[bool, str, bytes]:
    return is_tool, name, canonical.encode(given)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one[:20_000], other[:20_000], autojunk=False).quick_ratio()


def _lines(given: Any) -> list[str]:
    if isinstance(given, dict):
        return [f"{key}: {canonical.encode(value).decode()}" for key, value in given.items()]
    return [canonical.encode(given).decode()]


def _with_diff(what: str, recorded: Sequence[str], now: Sequence[str]) -> str:
    diff = difflib.unified_diff(recorded, now, "recorded", "now", lineterm="", n=2)
    return "\n".join([what, *diff])
