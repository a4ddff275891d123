"""A cassette: a run as a test. What it was given, and what models, tools and people answered, as YAML."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.reading.reader import Limits, read
from flujo.blueprint.yaml_writer import to_yaml
from flujo.domain import canonical
from flujo.exceptions import CassetteDamaged, CassetteTooNew, NotJournalable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

VERSION = 1
"""Increased by each change after which an older Flujo would misread a cassette."""

_LIMITS = Limits(file_bytes=64 * 2**20, scalar_bytes=16 * 2**20, nodes=2_000_000, depth=250)
_HEAD = "# A run as a test: `pytest` plays it without a model and without a network.\n"

Part = dict[str, Any]
"""What is sent to a model, or what it answers, as JSON data: see `docs/reference/cassettes.md`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedError:
    """The error that ended a request or a call."""

    type: str
    """The name of its class."""
    code: str
    message: str
    hint: str | None = None
    retryable: bool | None = None
    """Whether another attempt may succeed; None as for every error of its class."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to a model, and its response or its error."""

    send: tuple[Part, ...]
    """What is new since the response before: `user`, `result`, or `message` for anything else."""
    answer: tuple[Part, ...] = ()
    """`text`, and `call` with `arguments` for each tool call."""
    error: RecordedError | None = None
    """Why there is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The exchanges of one execution of a step with an agent."""

    at: str
    """The path of the step."""
    model: str
    """The requested model."""
    answered_by: str | None = None
    """The id of the model that answered."""
    instructions: str | None = None
    exchanges: tuple[Exchange, ...] = ()
    summaries: tuple[str, ...] = ()
    """Its summaries of older turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a callable or a tool, and its result."""

    at: str
    """The path of the call."""
    name: str
    """`module:callable` of a step, or the name of a tool."""
    given: Any
    """The arguments, or the input of a step without `with`."""
    result: Any = None
    error: RecordedError | None = None
    """Why there is no result."""
    is_tool: bool = False
    outcome: str = "result"
    """Of a tool: `result`, or a text for the model because the call failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a human answered, or the payload of an event."""

    at: str
    """The id of the question."""
    value: Any
    task: str = ""
    """The path of the step that launched the background task which asks; empty for the run itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number that a callable gives the output, and how far it may be from `value`."""

    by: str
    """`module:callable`; it gets the output."""
    value: float
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the output must be; each part that is there must hold."""

    output: tuple[Any, ...] = ()
    """The equal output, if there is one."""
    schema: Any = None
    """A JSON Schema."""
    score: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cassette:
    """A run as a test."""

    blueprint: str
    """The path of the blueprint in its project."""
    name: str
    """The name that the blueprint gives itself."""
    digest: str
    """The digest of the files that the run has pinned."""
    run_id: str
    input: Any
    context: Mapping[str, Any] = field(default_factory=dict)
    """The context at the start."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    conversations: tuple[Conversation, ...] = ()
    calls: tuple[Call, ...] = ()
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For each MCP server its tools, by name: the JSON Schema of their arguments."""
    answers: tuple[Answer, ...] = ()
    live: tuple[str, ...] = ()
    """Callables of steps that are called when the cassette is played, instead of answered from it."""
    expect: Expected = field(default_factory=Expected)

    def to_text(self) -> str:
        """Return the cassette as YAML.

        Raises:
            NotJournalable: YAML cannot hold a value of it.
        """
        data = _data(self)
        text = f"{_HEAD}{to_yaml(data)}\n"
        again = read(text.encode(), "", limits=_LIMITS)
        if again.diagnostics or again.data != data:
            raise NotJournalable("the run has a value that YAML cannot hold, such as a key of 128 characters")
        return text

    @classmethod
    def from_text(cls, data: bytes, file: str) -> Cassette:
        """Return the cassette in the bytes of a file.

        Args:
            data: YAML.
            file: the file, for errors.

        Raises:
            CassetteDamaged: it is not a cassette, or something in it is missing or of another type.
            CassetteTooNew: a newer Flujo wrote it.
        """
        document = read(data, file, limits=_LIMITS)
        errors = [str(finding) for finding in document.diagnostics if finding.is_error]
        if errors:
            raise CassetteDamaged("\n".join([f"{file} cannot be read", *errors]), file=file)
        return _Reading(file).cassette(document.data)

    @classmethod
    def open(cls, path: Path) -> Cassette:
        """Return the cassette in a file; see `from_text`.

        Raises:
            CassetteDamaged: it cannot be read, too.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CassetteDamaged(
                f"{path} cannot be read: {error.strerror or error}", file=str(path)
            ) from error
        return cls.from_text(data, str(path))

    def recorded_again(self, new: Cassette) -> Cassette:
        """Return a newer recording with the expectations of this one; an expected output is the new one."""
        output = new.expect.output if self.expect.output else ()
        return replace(new, live=self.live, expect=replace(self.expect, output=output))


# Writing -------------------------------------------------------------------------------------------------


def _data(tape: Cassette) -> dict[str, Any]:
    blueprint = {"path": tape.blueprint, "name": tape.name, "digest": tape.digest}
    if tape.overrides:
        blueprint["overrides"] = dict(tape.overrides)  # type: ignore[assignment]  # of texts
    data: dict[str, Any] = {
        "flujo_cassette": VERSION,
        "blueprint": blueprint,
        "run": tape.run_id,
        "input": tape.input,
    }
    lists = {
        "context": dict(tape.context),
        "answers": [_answer(each) for each in tape.answers],
        "models": [_conversation(each) for each in tape.conversations],
        "servers": {name: dict(tools) for name, tools in tape.servers.items()},
        "tools": [_call(each) for each in tape.calls if each.is_tool],
        "calls": [_call(each) for each in tape.calls if not each.is_tool],
        "live": list(tape.live),
        "expect": _expected(tape.expect),
    }
    plain: dict[str, Any] = _in_order(data | {name: value for name, value in lists.items() if value})
    return plain


def _in_order(data: Any) -> Any:
    """Return JSON data as a reader of the journal sees it, with its keys in the given order."""
    if isinstance(data, dict):
        return {key: _in_order(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_in_order(value) for value in data]
    return canonical.normalise(data)


def _answer(each: Answer) -> dict[str, Any]:
    return {"at": each.at, **({"task": each.task} if each.task else {}), "answer": each.value}


def _conversation(each: Conversation) -> dict[str, Any]:
    said: dict[str, Any] = {"at": each.at, "model": each.model}
    if each.answered_by is not None:
        said["answered_by"] = each.answered_by
    if each.instructions is not None:
        said["instructions"] = each.instructions
    said["exchanges"] = [_exchange(one) for one in each.exchanges]
    return said | ({"summaries": list(each.summaries)} if each.summaries else {})


def _exchange(each: Exchange) -> dict[str, Any]:
    ended = {"answer": list(each.answer)} if each.error is None else {"error": _error(each.error)}
    return {"send": list(each.send), **ended}


def _call(each: Call) -> dict[str, Any]:
    ended = {"result": each.result} if each.error is None else {"error": _error(each.error)}
    said = {"at": each.at, "name": each.name, "given": each.given, **ended}
    return said | ({} if each.outcome == "result" else {"outcome": each.outcome})


def _error(error: RecordedError) -> dict[str, Any]:
    said = {"type": error.type, "code": error.code, "message": error.message}
    more = {"hint": error.hint, "retryable": error.retryable}
    return said | {name: value for name, value in more.items() if value is not None}


def _expected(expect: Expected) -> dict[str, Any]:
    said: dict[str, Any] = {"output": expect.output[0]} if expect.output else {}
    if expect.schema is not None:
        said["schema"] = expect.schema
    if (score := expect.score) is not None:
        said["score"] = {"by": score.by, "value": score.value, "tolerance": score.tolerance}
    return said


# Reading -------------------------------------------------------------------------------------------------

_MISSING: Any = object()
_ANYTHING = (str, int, float, bool, dict, list, type(None))


class _Reading:
    """Reads the data of one file; each error names the place."""

    def __init__(self, file: str) -> None:
        self._file = file

    def cassette(self, data: Any) -> Cassette:
        version = data.get("flujo_cassette") if isinstance(data, dict) else None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise CassetteDamaged(f"{self._file} is not a cassette", file=self._file)
        if version > VERSION:
            raise CassetteTooNew(
                f"{self._file} has version {version} of the format, and this Flujo reads version {VERSION}",
                file=self._file,
                version=version,
            )
        known = ("flujo_cassette", "blueprint", "run", "input", "context", "answers", "models", "tools")
        self._only(data, (*known, "servers", "calls", "live", "expect"), "")
        blueprint = self._get(data, "blueprint", dict, "")
        return Cassette(
            blueprint=self._get(blueprint, "path", str, "blueprint."),
            name=self._get(blueprint, "name", str, "blueprint."),
            digest=self._get(blueprint, "digest", str, "blueprint."),
            overrides=self._get(blueprint, "overrides", dict, "blueprint.", {}),
            run_id=self._get(data, "run", str, ""),
            input=self._get(data, "input", _ANYTHING, ""),
            context=self._get(data, "context", dict, "", {}),
            conversations=self._each(data, "models", self._conversation),
            calls=(
                *self._each(data, "tools", lambda each, at: self._call(each, at, is_tool=True)),
                *self._each(data, "calls", lambda each, at: self._call(each, at, is_tool=False)),
            ),
            servers=self._servers(self._get(data, "servers", dict, "", {})),
            answers=self._each(data, "answers", self._answer),
            live=self._each(data, "live", self._text),
            expect=self._expected(self._get(data, "expect", dict, "", {})),
        )

    def _servers(self, data: Any) -> dict[str, dict[str, Any]]:
        return {name: self._get(data, name, dict, "servers.") for name in data}

    def _answer(self, data: Any, at: str) -> Answer:
        self._only(data, ("at", "task", "answer"), at)
        value = self._get(data, "answer", _ANYTHING, at)
        return Answer(
            at=self._get(data, "at", str, at), value=value, task=self._get(data, "task", str, at, "")
        )

    def _conversation(self, data: Any, at: str) -> Conversation:
        known = ("at", "model", "answered_by", "instructions", "exchanges", "summaries")
        self._only(data, known, at)
        return Conversation(
            at=self._get(data, "at", str, at),
            model=self._get(data, "model", str, at),
            answered_by=self._get(data, "answered_by", str, at, None),
            instructions=self._get(data, "instructions", str, at, None),
            exchanges=self._each(data, "exchanges", self._exchange, at),
            summaries=self._each(data, "summaries", self._text, at),
        )

    def _exchange(self, data: Any, at: str) -> Exchange:
        self._only(data, ("send", "answer", "error"), at)
        send, answer = self._each(data, "send", self._part, at), self._each(data, "answer", self._part, at)
        return Exchange(send, answer, self._error(data, at))

    def _error(self, data: Any, at: str) -> RecordedError | None:
        error = self._get(data, "error", dict, at, None)
        if error is None:
            return None
        at = f"{at}error."
        self._only(error, ("type", "code", "message", "hint", "retryable"), at)
        return RecordedError(
            type=self._get(error, "type", str, at),
            code=self._get(error, "code", str, at),
            message=self._get(error, "message", str, at),
            hint=self._get(error, "hint", str, at, None),
            retryable=self._get(error, "retryable", bool, at, None),
        )

    def _part(self, data: Any, at: str) -> Part:
        if not isinstance(data, dict):
            raise self._damaged(at, "is not a mapping")
        return data

    def _text(self, data: Any, at: str) -> str:
        if not isinstance(data, str):
            raise self._damaged(at, "is not a text")
        return data

    def _call(self, data: Any, at: str, *, is_tool: bool) -> Call:
        self._only(data, ("at", "name", "given", "result", "error", "outcome"), at)
        error = self._error(data, at)
        return Call(
            at=self._get(data, "at", str, at),
            name=self._get(data, "name", str, at),
            given=self._get(data, "given", _ANYTHING, at),
            result=self._get(data, "result", _ANYTHING, at, *([None] if error is not None else [])),
            error=error,
            outcome=self._get(data, "outcome", str, at, "result"),
            is_tool=is_tool,
        )

    def _expected(self, data: Any) -> Expected:
        at = "expect."
        self._only(data, ("output", "schema", "score"), at)
        score = self._get(data, "score", dict, at, None)
        output = self._get(data, "output", _ANYTHING, at, _MISSING)
        return Expected(
            output=() if output is _MISSING else (output,),
            schema=self._get(data, "schema", (dict, bool), at, None),
            score=None if score is None else self._score(score, "expect.score."),
        )

    def _score(self, data: Any, at: str) -> Score:
        self._only(data, ("by", "value", "tolerance"), at)
        value = self._get(data, "value", (int, float), at)
        tolerance = self._get(data, "tolerance", (int, float), at, 0.0)
        return Score(by=self._get(data, "by", str, at), value=value, tolerance=tolerance)

    def _each(self, data: Any, name: str, make: Callable[[Any, str], Any], at: str = "") -> tuple[Any, ...]:
        listed: Sequence[Any] = self._get(data, name, list, at, [])
        return tuple(make(each, f"{at}{name}[{number}].") for number, each in enumerate(listed))

    def _get(self, data: Any, name: str, kind: Any, at: str, default: Any = ...) -> Any:
        if not isinstance(data, dict):
            raise self._damaged(at, "is not a mapping")
        if name not in data:
            if default is ...:
                raise self._damaged(f"{at}{name}", "is missing")
            return default
        if not isinstance(data[name], kind):
            raise self._damaged(f"{at}{name}", f"is {type(data[name]).__name__}")
        return data[name]

    def _only(self, data: Any, known: Sequence[str], at: str) -> None:
        if not isinstance(data, dict):
            raise self._damaged(at, "is not a mapping")
        if unknown := [key for key in data if key not in known]:
            raise self._damaged(f"{at}{unknown[0]}", "is not known")

    def _damaged(self, at: str, why: str) -> CassetteDamaged:
        return CassetteDamaged(f"{self._file} is damaged: `{at.rstrip('.')}` {why}", file=self._file)
