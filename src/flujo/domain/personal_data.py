"""Personal data: its kinds, the languages whose rules are known, and the rules of a project."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from flujo.domain.wording import did_you_mean, listed
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.journal import RunId

Structured = Literal["email", "phone", "card", "iban", "national_id", "ip", "url_credentials", "key"]
"""A kind of personal data that a form, a checksum or a numbering plan shows."""

ENTITIES: tuple[Structured, ...] = get_args(Structured)

NameEntity = Literal["person", "place", "organisation"]
"""A kind of name, which a language model of a few megabytes finds."""

NAMES: tuple[NameEntity, ...] = get_args(NameEntity)

Entity = Structured | NameEntity
"""A kind of personal data."""

Locale = Literal["de", "en", "es", "fr", "it", "nl", "pl", "pt"]
"""A language: its phone numbers, national ids and words beside them."""

LOCALES: tuple[Locale, ...] = get_args(Locale)

NameLocale = Literal["en"]
"""A language with a model that finds names."""

NAME_LOCALES: tuple[NameLocale, ...] = get_args(NameLocale)


def placeholder(entity: Entity, _value: str = "") -> str:
    """Return the text that stands in place of a value: `<EMAIL>`."""
    return f"<{entity.upper()}>"


Replace = Callable[[Entity, str], str]
"""Returns the replacement of a value of a kind."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Makes the pseudonyms of one run: placeholders, of which each value has its own.

    A pseudonym follows from the value alone, so parallel branches and a resumed run have the same ones. The
    secret keeps a reader of requests from finding a value by trying all phone numbers.
    """

    secret: bytes = field(repr=False)
    """The secret of the run."""

    def of(self, entity: Entity, value: str) -> str:
        """Return the pseudonym of a value: `<EMAIL_kdhwqzmr>`; without digits, which a rule may find."""
        said = f"{entity} {value}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hmac.digest(self.secret, said, "sha256"))
        letters = (chr(ord("a") + number // 26**place % 26) for place in range(PSEUDONYM_LETTERS))
        return f"<{entity.upper()}_{''.join(letters)}>"


PSEUDONYM_LETTERS = 8
"""Of 1,000 values of a kind in a run, two have the same letters once in 400,000 runs."""


@runtime_checkable
class PseudonymStore(Protocol):
    """A store of runs that may have a secret for pseudonyms: one that follows from its key of encryption."""

    def pseudonyms(self, run_id: RunId) -> Pseudonyms | None:
        """Return what makes the pseudonyms of a run; None if the store encrypts nothing."""
        ...


Pii = Literal["scrub", "tokenise", "keep"]
"""`pii:` of a field or a step: its personal data is masked, has pseudonyms in requests, or is kept."""

CHOICES: tuple[Pii, ...] = get_args(Pii)

PII = "pii"
"""The keyword of a field in a JSON Schema."""


def pii_of(declared: Any) -> Mapping[str, Pii]:
    """Return the fields of a class of pydantic or a JSON Schema that declare `pii`, with their declarations.

    In a class, a field declares it with `Field(json_schema_extra={"pii": "keep"})`.

    Raises:
        PipelineError: a field of a class declares something else.
    """
    if isinstance(declared, Mapping):
        fields = declared.get("properties")
        return _chosen(fields) if isinstance(fields, Mapping) else {}
    extras = {name: field.json_schema_extra for name, field in getattr(declared, "model_fields", {}).items()}
    for name, extra in extras.items():
        given = extra.get(PII) if isinstance(extra, Mapping) else None
        if given is not None and given not in CHOICES:
            raise PipelineError(
                f"field `{name}` of {declared.__name__} has `pii` {given!r}; "
                f"expected {listed(CHOICES, 'or')}",
                hint=did_you_mean(str(given), CHOICES),
            )
    return _chosen(extras)


def _chosen(fields: Mapping[str, Any]) -> Mapping[str, Pii]:
    found = ((name, each.get(PII)) for name, each in fields.items() if isinstance(each, Mapping))
    return {name: choice for name, choice in found if choice in CHOICES}


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in JSON data, and its numbers as texts."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from texts_of(each)
        case list():
            for each in value:
                yield from texts_of(each)
        case int() if not isinstance(value, bool):
            yield str(value)
        case _:
            return


@dataclass(frozen=True, slots=True)
class Rules:
    """The personal data that a project masks."""

    entities: tuple[Entity, ...] = ENTITIES
    """The kinds that are masked."""
    locales: tuple[Locale, ...] = LOCALES
    """The languages of phone numbers, national ids and the words beside them."""
    allow: tuple[str, ...] = ()
    """Values that are not masked: patterns with `*` and `?`, compared without case."""

    @property
    def name_locales(self) -> tuple[NameLocale, ...]:
        """The languages whose names are masked; empty if no name is."""
        has_names = any(each in self.entities for each in NAMES)
        return tuple(each for each in NAME_LOCALES if has_names and each in self.locales)


class Scrub(Protocol):
    """Masks personal data."""

    def text(
        self, text: str, *, key: str = "", kept: Sequence[str] = (), replace: Replace = placeholder
    ) -> str:
        """Return a text with `<EMAIL>`, `<PHONE>` … in place of personal data.

        Args:
            text: the text.
            key: the name of the field that it is the value of, which counts like a word before it.
            kept: texts whose values are not masked.
            replace: returns the replacement of a value.
        """
        ...

    def data(
        self, value: Any, *, key: str = "", kept: Sequence[str] = (), replace: Replace = placeholder
    ) -> Any:
        """Return JSON data with the personal data in its texts, long numbers and keys masked; see `text`."""
        ...
