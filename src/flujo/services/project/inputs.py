"""Parses command-line values as input, context and metadata, and validates them with a schema."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.commands import command, either, placeholder
from flujo.domain.text import MARK, NotUtf8, decoded
from flujo.domain.wording import size
from flujo.exceptions import InputRejected, NotJournalable, OutputRejected, SettingsError
from flujo.json_schema import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flujo.blueprint.schemas.validator import CompiledSchema

MAX_BYTES = 64 * 1024 * 1024
"""The maximum size of an input file."""

_MISSING: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The sources of an input. At most one is set; `piped` counts only without the others."""

    text: str | None = None
    file: Path | None = None
    fields: Sequence[str] = ()
    piped: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """A run's input, and a note on how it was parsed."""

    value: Any
    note: str = ""


def read_input(schema: Any, given: Given, *, what: str = "the input") -> Input:
    """Return the given value as `schema` wants it: a blueprint's input, or a human's answer.

    With a string schema or no schema, text is the value itself. With an object schema it is JSON, or the
    value of the only required string property (then `note` is set). Text that begins like JSON must be JSON,
    unless it is in a file `.txt` or `.md`. The suffix of a file decides its format.
    The schema decides the types of fields, and values of the wrong type are corrected where their meaning is
    certain (`flujo.json_schema.coercion`).

    Raises:
        SettingsError: several ways were used at once, or a file cannot be read.
        InputRejected: the input does not fit; each violation is named.
    """
    ways = [given.text is not None, given.file is not None, bool(given.fields)]
    if sum(ways) > 1:
        raise SettingsError(
            f"{what} is given more than once", hint="use only one of --input, --input-file and --field"
        )
    found = _understood(schema, given, what)
    value = _without(schema) if found.value is _MISSING else found.value
    _require_json(value, what)
    notes = [found.note] if found.note else []
    if schema is not None:
        value, changes = _fitting(schema, value, what, given_at_all=found.value is not _MISSING)
        notes += changes
    return Input(value, "; ".join(notes))


def require_whole_json(text: str, what: str, *, hint: str) -> None:
    """Refuse text that begins like a JSON object or list and is not JSON: a quote or a bracket is missing.

    Args:
        text: the text.
        what: its name in messages.
        hint: how to say that it is meant as text.

    Raises:
        InputRejected: the text is not what it seems to be.
    """
    if not _LIKE_JSON.match(text):
        return
    try:
        strict_json.loads(text)
    except ValueError as error:
        raise InputRejected(f"{what} begins like JSON and is not JSON: {error}", hint=hint) from None


_LIKE_JSON = re.compile(r"""\s*(\{\s*["']|\[\s*["'{\[])""")
_TEXT_FILES = (".txt", ".md")
_AS_TEXT = "if it is meant as text, put it into a file and pass `--input-file input.txt`"


def read_answer(text: str, *, option: str) -> Any:
    """Return an answer to a question: JSON, or any other text itself.

    Raises:
        InputRejected: it begins like JSON and is not JSON.
    """
    hint = "text that begins like that is written as a JSON string, in quotation marks"
    require_whole_json(text, option, hint=hint)
    return json_or_text(text)


def json_or_text(text: str) -> Any:
    """Return the value of a text that is JSON, and any other text itself."""
    try:
        return strict_json.loads(text)
    except ValueError:
        return text


def read_fields(pairs: Sequence[str], schema: Any = None, *, option: str) -> dict[str, Any]:
    """Return `name=value` words as a mapping.

    A value is typed by its property in `schema`; without one it stays text, unless it is a JSON list or
    object.

    Args:
        pairs: the words.
        schema: the JSON Schema of the whole mapping, if there is one.
        option: the option they were given with, for messages.

    Raises:
        SettingsError: a word without `=`, or a name that comes twice.
        InputRejected: a value that its property's type cannot take.
    """
    properties = _properties(schema)
    values: dict[str, Any] = {}
    for name, text in _split(pairs, option):
        values[name] = _typed(text, properties.get(name), root=schema, what=f"{option} {name}")
    return values


def read_metadata(pairs: Sequence[str]) -> dict[str, str | int | float | bool | None]:
    """Return `name=value` words as metadata: JSON numbers, booleans and null as such, all else as text.

    Raises:
        SettingsError: a word without `=`, or a name that comes twice.
    """
    return {name: _scalar(text) for name, text in _split(pairs, "--metadata")}


_CONDITION = re.compile(r"([^=<>!]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)


def read_conditions(words: Sequence[str], *, option: str) -> dict[str, Any]:
    """Return conditions on metadata: `customer=c1`, `total>=100`, `order.place=Bonn`.

    A key that comes twice with `=` may have either value.

    Raises:
        SettingsError: a word is not a condition, or a key has conditions that exclude each other.
    """
    found: dict[str, Any] = {}
    for word in words:
        parts = _CONDITION.fullmatch(word)
        if parts is None:
            hint = f"write {option} KEY=VALUE, or KEY>=VALUE in quotation marks"
            raise SettingsError(f"{option} {word!r} is not a condition", hint=hint)
        path, sign, text = parts.groups()
        *above, key = path.strip().split(".")
        inside = found
        for name in above:
            inside = inside.setdefault(name, {})
            if not isinstance(inside, dict):
                raise SettingsError(f"{option} compares `{name}` and a key below it", hint="use only one")
        if not _added(inside, key, sign, _scalar(text)):
            raise SettingsError(f"{option} compares `{path}` in ways that cannot be combined")
    return found


def _added(found: dict[str, Any], key: str, sign: str, value: Any) -> bool:
    """Add a condition to those of its key; return whether they can be combined."""
    there = found.get(key)
    if sign == "=":
        if isinstance(there, dict):
            return False
        found[key] = value if key not in found else [*(there if isinstance(there, list) else [there]), value]
        return True
    if (key in found and not isinstance(there, dict)) or sign in (there or {}):
        return False
    found.setdefault(key, {})[sign] = value
    return True


def read_moment(text: str, *, option: str) -> timedelta | datetime:
    """Return a time: how long ago (`2h`, `2h ago`), or a date with or without a time (`2026-11-28T09:30`).

    Raises:
        SettingsError: it is neither.
    """
    duration = text.removesuffix(" ago")
    if _DURATION.fullmatch(duration):
        return timedelta(seconds=read_duration(duration, option=option))
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SettingsError(
            f"{option} {text!r} is not a time", hint="write 2h or 30d for how long ago, or 2026-11-28T09:30"
        ) from None


def read_json(text: str, *, option: str) -> Any:
    """Return what an option says as JSON.

    Raises:
        InputRejected: it is not JSON.
    """
    try:
        return strict_json.loads(text)
    except ValueError as error:
        raise InputRejected(
            f"{option} is not JSON: {error}", hint=f"text needs quotes: {option} '\"paid\"'"
        ) from None


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_duration(text: str, *, option: str) -> float:
    """Return the seconds of a duration with its unit: `30d`, `12h`, `90m`, `45s`.

    Raises:
        SettingsError: it is not a duration, or has no unit.
    """
    if found := _DURATION.fullmatch(text):
        return float(found[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}[found[2]]
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        units = ", ".join(f"{text}{unit} for {text} {name}" for unit, name in reversed(_UNITS.items()))
        raise SettingsError(f"{option} {text} has no unit", hint=f"write {units}")
    raise SettingsError(f"{option} {text!r} is not a duration", hint="write 30d, 12h, 90m or 45s")


def read_overrides(pairs: Sequence[str], *, option: str = "--set") -> dict[str, str]:
    """Return `agents.NAME.model=…` and `agents.NAME.instructions=…` words as a mapping of text.

    Raises:
        SettingsError: a word without `=`, or a name that comes twice.
    """
    return dict(_split(pairs, option))


# The ways to give an input ------------------------------------------------------------------------------


def _understood(schema: Any, given: Given, what: str) -> Input:
    if given.fields:
        return Input(read_fields(given.fields, schema, option="--field"))
    if given.file is not None:
        return _from_file(schema, given.file, what)
    # `--input "$(cat FILE)"` passes the byte order mark of the file.
    text = given.text.removeprefix(MARK) if given.text is not None else given.piped
    return Input(_MISSING) if text is None else _from_text(schema, text, what)


def _from_text(schema: Any, text: str, what: str, *, may_seem_json: bool = False) -> Input:
    kinds = _types(schema)
    if not may_seem_json and (not kinds or "string" in kinds or _only_required_text(schema)):
        require_whole_json(text, what, hint=_AS_TEXT)
    if "object" not in kinds:
        return Input(_typed(text, schema, root=schema, what=what))
    try:
        return Input(strict_json.loads(text))
    except ValueError as error:
        name = _only_required_text(schema)
        if name is None:
            raise InputRejected(
                f"{what} is not JSON: {error}",
                hint=f"pass JSON, or fields: {example(schema)}",
            ) from None
        return Input({name: text}, note=f"input text assigned to field `{name}`")


def _from_file(schema: Any, path: Path, what: str) -> Input:
    data = _file_bytes(path)
    if path.suffix in (".yaml", ".yml"):
        return Input(_yaml(data, path))
    try:
        text = decoded(data)
        if path.suffix == ".json":
            return Input(strict_json.loads(text))
        return _from_text(schema, text, what, may_seem_json=path.suffix in _TEXT_FILES)
    except NotUtf8 as error:
        raise SettingsError(f"{path}: {error}", hint=error.hint) from None
    except ValueError as error:
        raise InputRejected(f"{path} is not JSON: {error}") from None


def _file_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"{path} is larger than {size(MAX_BYTES)}")
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", hint="`--input-file` takes a file's path"
        ) from error


def _yaml(data: bytes, path: Path) -> Any:
    from flujo.blueprint.reading.reader import read

    document = read(data, str(path))
    errors = [str(finding) for finding in document.diagnostics if finding.is_error]
    if errors:
        raise InputRejected("\n".join([f"{path} cannot be used", *errors]))
    return document.data


# What a schema says -------------------------------------------------------------------------------------


def _fitting(schema: Any, value: Any, what: str, *, given_at_all: bool) -> tuple[Any, tuple[str, ...]]:
    """Return a value that fits its schema, with a note for each corrected type."""
    compiled = _compiled(schema)
    value, notes = compiled.coerced(value)
    try:
        compiled.check(value, what=what)
    except OutputRejected as error:
        if not given_at_all:
            raise InputRejected(f"{what} is missing", hint=f"pass {example(schema)}") from None
        raise InputRejected(error.message, hint=f"example: {example(schema)}") from None
    return value, notes


def _require_json(value: Any, what: str) -> None:
    """Refuse what the journal could not hold: half a surrogate pair, an integer beyond 64 bits."""
    try:
        canonical.encode(value, what=what)
    except NotJournalable as error:
        raise InputRejected(error.message, hint=error.hint) from None


def _without(schema: Any) -> Any:
    """Return the input of a run that was given none: `{}` where an object is wanted."""
    return {} if "object" in _types(schema) else None


def _types(schema: Any) -> tuple[str, ...]:
    """Return the JSON types that a schema names at its top."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind is None and _properties(schema):
        return ("object",)
    return (kind,) if isinstance(kind, str) else tuple(kind or ())


def _properties(schema: Any) -> Mapping[str, Any]:
    found = schema.get("properties") if isinstance(schema, dict) else None
    return found if isinstance(found, dict) else {}


def _only_required_text(schema: Any) -> str | None:
    required = (schema.get("required") or []) if isinstance(schema, dict) else []
    if len(required) != 1:
        return None
    kinds = _types(_properties(schema).get(required[0]))
    return str(required[0]) if not kinds or "string" in kinds else None


@dataclass(frozen=True)
class Example:
    """Options that give an input, with words in capitals to replace, and what may replace them."""

    options: tuple[str, ...]
    values: str

    def __str__(self) -> str:
        options = command(*self.options)
        return f"`{options}` ({self.values})" if self.values else f"`{options}`"


def example(schema: Any) -> Example:
    """Return the options that give an input of this schema. No example is a valid choice of its own."""
    names = (schema.get("required") or list(_properties(schema))) if isinstance(schema, dict) else []
    if "object" not in _types(schema) or not names:
        word, meaning = _word("value", schema)
        return Example(("--input", word), meaning)
    words = {str(name): _word(str(name), _properties(schema).get(name)) for name in names}
    options = [each for name, (word, _) in words.items() for each in ("--field", f"{name}={word}")]
    return Example(tuple(options), "; ".join(meaning for _, meaning in words.values() if meaning))


def _word(name: str, schema: Any) -> tuple[str, str]:
    """Return a word that stands for a value of this schema, and in words what to replace it with."""
    choices = _choices(schema)
    kinds = _types(schema)
    if not choices and (not kinds or "string" in kinds):
        return "TEXT", ""
    word = placeholder(name)
    while word in choices:
        word = f"{word}_VALUE"
    if "array" in kinds:
        word = f"[{word}]"  # a single word would become a list of one
    return word, f"{word}: {either(choices) if choices else ' or '.join(map(_kind, kinds))}"


def _choices(schema: Any) -> list[Any]:
    """Return the values that a schema lists."""
    if not isinstance(schema, dict):
        return []
    return list(schema["enum"]) if schema.get("enum") else [schema["const"]] if "const" in schema else []


def _kind(kind: str) -> str:
    return _KINDS.get(kind, kind)


_KINDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a JSON list",
    "object": "a JSON object",
}
_WRITTEN = {"boolean": "true", "integer": "3", "number": "2.5", "array": '["a", "b"]', "object": '{"a": 1}'}
"""A value of each type, as it is typed."""


# Words and their types ----------------------------------------------------------------------------------


def _split(pairs: Sequence[str], option: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"{option} {pair!r} has no `=`", hint=f"write {option} name=value")
        if name in found:
            raise SettingsError(f"{option} gives `{name}` twice", hint="use each name once")
        found[name] = value
    return list(found.items())


def _compiled(schema: Any) -> CompiledSchema:
    from flujo.blueprint.schemas.validator import compile_schema

    return compile_schema(schema)


def _typed(text: str, schema: Any, *, root: Any, what: str) -> Any:
    """Return a text as the type that its schema names; text stays text wherever that is allowed.

    Args:
        text: the typed text.
        schema: the schema of the value, or None.
        root: the schema that encloses it, with the definitions that it refers to.
        what: the name of the value in messages.
    """
    kinds = _types(schema)
    if isinstance(schema, dict) and kinds != ("string",):
        shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        value, notes = _compiled({**shared, **schema}).coerced(text)
        if notes:
            return value
    if "string" in kinds:
        return text
    if not kinds:
        return _structure(text, what) if what.startswith("--") else text
    try:
        return strict_json.loads(text)
    except ValueError:
        wanted = " or ".join(map(_kind, kinds))
        written = _WRITTEN.get(kinds[0], kinds[0])
        given = f"{what}={written}" if what.startswith("--") else written
        raise InputRejected(
            f"{what}: {text[:60]!r} is not {wanted}", hint=f"for instance `{given}`"
        ) from None


def _structure(text: str, what: str) -> Any:
    require_whole_json(text, what, hint="if it is meant as text, declare the field as `type: string`")
    try:
        return strict_json.loads(text) if text[:1] in ("[", "{") else text
    except ValueError:
        return text


def _scalar(text: str) -> str | int | float | bool | None:
    try:
        value = strict_json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str | list | dict) else value
