"""Decides whether a request may be sent to a provider now; the same rules in SQL and in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flujo.domain.providers import Admission

if TYPE_CHECKING:
    from flujo.domain.providers import Allowed

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sent:
    """The requests to a provider within one span of time."""

    count: int
    tokens: int
    oldest: int
    """When the first of them was sent, in microseconds since the epoch; 0 without one."""
    newest: int


def admitted(sent: Sent, tokens: int, allowed: Allowed, span_s: float, now: int) -> Admission:
    """Admit a request, or say in how many seconds the next one leaves the span.

    A request that is larger than `tpm` is admitted when no other one counts.
    """
    is_over = allowed.rpm is not None and sent.count >= allowed.rpm
    if allowed.tpm is not None and sent.count:
        is_over |= sent.tokens + min(tokens, allowed.tpm) > allowed.tpm
    if is_over:
        return Admission(None, max(0.0, (sent.oldest - now) / MICROSECONDS + span_s))
    return Admission(max(now, sent.newest + 1))


@dataclass(slots=True)
class MemoryRequests:
    """The requests of a database in memory: for each provider, the tokens by the moment of sending."""

    sent: dict[str, dict[int, int]] = field(default_factory=dict)

    def admit(self, provider: str, tokens: int, allowed: Allowed, span_s: float, now: float) -> Admission:
        """Count a request as sent, or say how long it has to wait."""
        moment = int(now * MICROSECONDS)
        since = moment - int(span_s * MICROSECONDS)
        rows = {at: used for at, used in self.sent.get(provider, {}).items() if at > since}
        self.sent[provider] = rows
        found = Sent(len(rows), sum(rows.values()), min(rows, default=0), max(rows, default=0))
        admission = admitted(found, tokens, allowed, span_s, moment)
        if admission.ticket is not None:
            rows[admission.ticket] = tokens
        return admission

    def settle(self, provider: str, ticket: int, tokens: int | None) -> None:
        """Replace the tokens of a request; None removes it."""
        rows = self.sent.get(provider, {})
        if ticket in rows:
            if tokens is None:
                del rows[ticket]
            else:
                rows[ticket] = tokens
