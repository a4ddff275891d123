"""The model's door: masks personal data in requests, or replaces it by pseudonyms (see `restoring`).

A recorded message is not changed: it is masked for each request, so a resumed run sends the same. A
pseudonym follows from its value, so nothing is stored: who sends one has just made it from the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from flujo.agents.thread_pool import THREADS
from flujo.domain import canonical
from flujo.domain.personal_data import placeholder
from flujo.exceptions import NotJournalable, PseudonymsNeedKeys
from flujo.governance.sink import GATE
from flujo.json_schema import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.agents import Ask
    from flujo.domain.conversations import Message
    from flujo.domain.personal_data import Entity, Pii, Pseudonyms

T = TypeVar("T")

_SAID = ("user-prompt", "tool-return", "retry-prompt", "system-prompt", "text")
"""The kinds of parts whose content is masked. Reasoning is signed by its provider, and cannot be changed."""


@dataclass(frozen=True, slots=True)
class Door:
    """Masks or tokenises the personal data of the requests of one conversation."""

    pii: Pii | None = None
    """`pii:` of the step."""
    kept: Sequence[str] = ()
    """Texts whose personal data is not masked: those of fields with `pii: keep`."""
    tokenised: Sequence[str] = ()
    """Texts whose personal data is tokenised whatever `pii` is: those of fields with `pii: tokenise`."""
    pseudonyms: Pseudonyms | None = None
    """Makes the pseudonyms of the run; None where nothing is tokenised."""
    sent: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """The values of the pseudonyms that were sent, which the responses may have."""

    @classmethod
    def of(cls, ask: Ask) -> Door:
        """Return the door for the requests of a step."""
        return cls(ask.pii, ask.kept, ask.tokenised, ask.pseudonyms)

    @property
    def is_open(self) -> bool:
        """Whether everything is sent as it is."""
        return not self.tokenised and not GATE.masks_requests(self.pii)

    @property
    def is_tokenised(self) -> bool:
        """Whether requests may have pseudonyms."""
        return self.pii == "tokenise" or bool(self.tokenised)

    async def apart(self, masking: Callable[[], T]) -> T:
        """Return what a function gives that masks, called in a thread where names are masked.

        The event loop continues meanwhile: other runs, leases and timeouts.
        """
        if self.is_open or not GATE.reads_names:
            return masking()
        return await THREADS.submit(masking)

    def text(self, text: str) -> str:
        """Return a text for a model; JSON in it stays JSON.

        Raises:
            PseudonymsNeedKeys: it is to be tokenised, and the storage of runs has no key.
        """
        if self.is_open:
            return text
        if text[:1] in ("{", "["):
            try:
                data = strict_json.loads(text)
                masked = self.data(data)
                return text if masked == data else canonical.encode(masked).decode()
            except (ValueError, RecursionError, NotJournalable):
                pass
        return str(GATE.leaving(text, self._replacement, self.kept))

    def data(self, data: Any) -> Any:
        """Return JSON data for a model; errors as of `text`."""
        return data if self.is_open else GATE.leaving(data, self._replacement, self.kept)

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages as they are sent."""
        if self.is_open:
            return list(messages)
        return [{**each, "parts": [self._part(part) for part in each["parts"]]} for each in messages]

    def _replacement(self, entity: Entity, value: str) -> str:
        if entity == "url_credentials" and self.is_tokenised:
            return placeholder(entity)  # the value has no password any more that could be restored
        if self.pii != "tokenise" and not any(value in each for each in self.tokenised):
            return placeholder(entity) if GATE.masks_requests(self.pii) else value
        if self.pseudonyms is None:
            raise PseudonymsNeedKeys("personal data is to be tokenised, and the runs have no key for it")
        pseudonym = self.pseudonyms.of(entity, value)
        # Of two values with one pseudonym only the first can be restored; the other one is masked.
        return pseudonym if self.sent.setdefault(pseudonym, value) == value else placeholder(entity)

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        kind = part.get("part_kind")
        if kind == "tool-call":
            return {**part, "args": self._content(part.get("args"))}
        return {**part, "content": self._content(part.get("content"))} if kind in _SAID else part

    def _content(self, content: Any) -> Any:
        match content:
            case str():
                return self.text(content)
            case list():  # of a prompt with files, or a result
                return [each if _is_file(each) else self._content(each) for each in content]
            case _:
                return self.data(content)


def _is_file(said: Any) -> bool:
    return isinstance(said, dict) and said.get("kind") == "binary"


PROJECT = Door()
"""Masks what the project declares."""
