"""The gate: every log line, event, trace and export passes it; text is redacted, values are checked.

`Gate.text`, `Gate.result` and `Gate.data` mask secrets in what people read. Values of a run (input, output,
patch, answer) are stored as they are: `Gate.admit` refuses one that contains a whole secret.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import TYPE_CHECKING, Any

from flujo.exceptions import SecretInValue
from flujo.governance.redactor import SHORTEST_SECRET, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable


class Gate:
    """Knows the secrets of this process, and keeps them from leaving it."""

    def __init__(self) -> None:
        self._learning = Lock()
        self._known: dict[str, str] = {}
        self._suspects: frozenset[str] = frozenset()
        self._needles: tuple[tuple[bytes, str], ...] = ()
        self._redact = self._redact_known = Redactor()

    def know(self, secrets: Iterable[str], of: str) -> None:
        """Add secrets: keys of providers, passwords in URLs.

        Args:
            secrets: the values; those of less than 8 characters are left out.
            of: what they are the values of, such as the name of a variable; shown when one is refused.
        """
        new = {each: of for each in secrets if len(each) >= SHORTEST_SECRET and each not in self._known}
        if new:
            with self._learning:
                self._known = {**self._known, **new}
                needles = (
                    (json.dumps(each, ensure_ascii=False)[1:-1], name) for each, name in self._known.items()
                )
                self._needles = tuple((each.encode("utf-8", "replace"), name) for each, name in needles)
                self._redact_known = Redactor(self._known)
                self._redact = Redactor(self._known, self._suspects)

    def suspect(self, values: Iterable[str]) -> None:
        """Add values that only look like secrets: masked in messages, shown in results, allowed in values."""
        new = frozenset(each for each in values if len(each) >= SHORTEST_SECRET)
        if not new <= self._suspects:
            with self._learning:
                self._suspects |= new
                self._redact = Redactor(self._known, self._suspects)

    def text(self, text: str) -> str:
        """Return a message (an error, a log line, progress) without secrets and what looks like one."""
        return self._redact(text)

    def result(self, text: str) -> str:
        """Return the text of a result, a trace or an export without secrets."""
        return self._redact_known(text)

    def data(self, data: Any) -> Any:
        """Return JSON data of a result, a trace or an export without secrets in its texts."""
        if isinstance(data, str):
            return self._redact_known(data)
        if isinstance(data, dict):
            return {key: self.data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.data(value) for value in data]
        return data

    def admit(self, value: bytes, what: str) -> bytes:
        """Return a value, as canonical JSON, that goes into the journal unchanged.

        Raises:
            SecretInValue: it contains a whole secret of 8 characters or more.
        """
        for needle, name in self._needles:
            if needle in value:
                raise SecretInValue(f"{what} contains the value of {name}", secret=name)
        return value


# One gate a process: a secret that one project knows must not leave through the log of another one.
GATE = Gate()
