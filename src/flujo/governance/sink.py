"""The gate, which masks text of logs, events, traces and exports, and checks values for secrets.

`Gate.text`, `Gate.result` and `Gate.data` mask secrets in displayed text, and then personal data where a
project asks for it. Values of a run (input, output, patch, answer) are stored unchanged: `Gate.admit` refuses
a value that contains a whole secret.
"""

from __future__ import annotations

import json
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from flujo.domain.personal_data import Rules, placeholder
from flujo.exceptions import SecretInValue
from flujo.governance.redactor import SHORTEST_SECRET, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flujo.domain.personal_data import Pii, Replace, Scrub


class Gate:
    """Holds the secrets of this process, and masks or refuses them. It also masks personal data."""

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
        self._personal: Mapping[Rules, Scrub] = {}
        self.masks_values = False
        """Whether personal data is masked as it enters a run, so that the database has none."""
        self.personal_rules = Rules()
        """The rules for fields and steps with `pii: scrub` where nothing else is masked."""

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

    def hide_personal_data(self, rules: Rules) -> None:
        """Mask personal data from now on, in everything that leaves this process.

        Like secrets, rules are only added: each project of a process has its own.
        """
        if rules not in self._personal:
            with self._learning:
                self._personal = {**self._personal, rules: scrub(rules)}

    @property
    def hides_personal_data(self) -> bool:
        """Whether personal data is masked."""
        return bool(self._personal)

    @property
    def reads_names(self) -> bool:
        """Whether names are masked: a model reads each text, a second for some tens of kilobytes."""
        return any(rules.name_locales for rules in (*self._personal, self.personal_rules))

    def masks_requests(self, pii: Pii | None) -> bool:
        """Return whether personal data is masked in the requests of a step, by its declaration."""
        return pii in ("scrub", "tokenise") or (pii is None and self.hides_personal_data)

    @property
    def masks_of_requests(self) -> dict[str, Any]:
        """What decides the requests of a step without `pii`, as JSON data: a part of the keys of a cache."""
        rules = [[each.entities, each.locales, each.allow] for each in self._personal]
        return {"personal_data": rules} if rules else {}

    def leaving(self, data: Any, replace: Replace, kept: Sequence[str] = ()) -> Any:
        """Return JSON data for a model, with its personal data replaced.

        Args:
            data: a text or JSON data.
            replace: returns the replacement of a value.
            kept: texts whose personal data is not replaced.
        """
        return self._masked(data, kept=kept, replace=replace)

    def entering(self, value: Any, pii: Pii | None = None, *, key: str = "") -> Any:
        """Return JSON data that enters a run, with personal data masked where it is declared.

        Args:
            value: a value of an input, a context, an answer, or the result of a step.
            pii: the declaration of its field or its step.
            key: the name of its field.
        """
        is_masked = pii == "scrub" or (pii != "keep" and self.masks_values)
        return self._masked(value, key=key) if is_masked else value

    def entering_fields(self, value: Any, declared: Mapping[str, Pii]) -> Any:
        """Return a mapping that enters a run, field by field by their declarations; see `entering`."""
        if not declared or not isinstance(value, dict):
            return self.entering(value)
        return {name: self.entering(each, declared.get(name), key=name) for name, each in value.items()}

    def _masked(
        self, data: Any, *, key: str = "", kept: Sequence[str] = (), replace: Replace = placeholder
    ) -> Any:
        for each in self._personal.values() or (scrub(self.personal_rules),):
            data = each.data(data, key=key, kept=kept, replace=replace)
        return data

    def text(self, text: str) -> str:
        """Return a message (an error, a log line, progress) with secrets and personal data masked.

        Suspects are masked too.
        """
        return self._impersonal(self._redact(text))

    def result(self, text: str) -> str:
        """Return the text of a result, a trace or an export with secrets and personal data masked."""
        return self._impersonal(self._redact_known(text))

    def unmasked(self, text: str) -> str:
        """Return a text with secrets masked, and its personal data as it is, for a person who may see it."""
        return self._redact_known(text)

    def data(self, data: Any) -> Any:
        """Return JSON data of a result, a trace or an export with secrets and personal data masked."""
        data = self._without_secrets(data)
        for each in self._personal.values():
            data = each.data(data)
        return data

    def _impersonal(self, text: str) -> str:
        for each in self._personal.values():
            text = each.text(text)
        return text

    def _without_secrets(self, data: Any) -> Any:
        if isinstance(data, str):
            return self._redact_known(data)
        if isinstance(data, dict):
            return {key: self._without_secrets(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self._without_secrets(value) for value in data]
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


@lru_cache(maxsize=16)
def scrub(rules: Rules) -> Scrub:
    """Return what masks personal data by these rules."""
    # The tables of phone numbers and national ids take a third of a second.
    from flujo.governance.personal_data.scrubber import Scrubber

    return Scrubber(rules)


# One gate per process, so that a secret of one project cannot leak into the log of another one.
GATE = Gate()
