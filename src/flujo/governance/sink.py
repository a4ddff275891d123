"""The gate, which redacts text of logs, events, traces and exports, and checks values for secrets.

`Gate.text`, `Gate.result` and `Gate.data` mask secrets in displayed text. Values of a run (input, output,
patch, answer) are stored unchanged: `Gate.admit` refuses a value that contains a whole secret.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import TYPE_CHECKING, Any

from flujo.exceptions import SecretInValue
from flujo.governance.redactor import SHORTEST_SECRET, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Gate:
    """Holds the secrets of this process, and masks or refuses them."""

    def __init__(self) -> None:
        self._learning = Lock()
        self._known: dict[str, str] = {}
        self._suspects: frozenset[str] = frozenset()
        self._needles: tuple[tuple[bytes, str], ...] = ()
        self.environment: Mapping[Any, Any] | None = None
        """The variables whose secrets are known, as they were last read."""
        self.knows_secrets = False
        """Whether `admit` refuses anything."""
        self._redact = self._redact_known = Redactor()

    def know(self, secrets: Iterable[str], of: str) -> None:
        """Add secrets: keys of providers, passwords in URLs.

        Args:
            secrets: the values; values of less than 8 characters are ignored.
            of: their source, such as the name of a variable, for errors.
        """
        new = {each: of for each in secrets if len(each) >= SHORTEST_SECRET and each not in self._known}
        if new:
            with self._learning:
                self._known = {**self._known, **new}
                needles = (
                    (json.dumps(each, ensure_ascii=False)[1:-1], name) for each, name in self._known.items()
                )
                self._needles = tuple((each.encode("utf-8", "replace"), name) for each, name in needles)
                self.knows_secrets = True
                self._redact_known = Redactor(self._known)
                self._redact = Redactor(self._known, self._suspects)

    def suspect(self, values: Iterable[str]) -> None:
        """Add values that may be secrets: masked in messages, shown in results, allowed in values."""
        new = frozenset(each for each in values if len(each) >= SHORTEST_SECRET)
        if not new <= self._suspects:
            with self._learning:
                self._suspects |= new
                self._redact = Redactor(self._known, self._suspects)

    def text(self, text: str) -> str:
        """Return a message (an error, a log line, progress) with secrets and suspects masked."""
        return self._redact(text)

    def result(self, text: str) -> str:
        """Return the text of a result, a trace or an export with secrets masked."""
        return self._redact_known(text)

    def data(self, data: Any) -> Any:
        """Return JSON data of a result, a trace or an export with secrets in its texts masked."""
        if isinstance(data, str):
            return self._redact_known(data)
        if isinstance(data, dict):
            return {key: self.data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.data(value) for value in data]
        return data

    def admit(self, value: bytes, what: str) -> bytes:
        """Return canonical JSON for the journal unchanged, after a check for secrets.

        Raises:
            SecretInValue: it contains a whole secret of 8 characters or more.
        """
        for needle, name in self._needles:
            if needle in value:
                raise SecretInValue(f"{what} contains the value of {name}", secret=name)
        return value


# One gate per process, so that a secret of one project cannot leak into the log of another one.
GATE = Gate()
