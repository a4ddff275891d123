"""Whether a failed step is retried, and the delay before the retry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backoff = Literal["none", "fixed", "exponential"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Delays between attempts: `initial_s`, multiplied by `factor`, at most `max_s`, spread by `jitter`.

    A provider that asks to wait longer is given that time, up to `max_s`.
    """

    backoff: Backoff = "exponential"
    initial_s: float = 0.5
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.2
    """The random spread of a delay: 0.2 means ±20 %."""
    on: tuple[str, ...] = ()
    """Error codes or names of exception classes to retry; empty means all retryable errors."""

    def delay_s(self, failures: int, fraction: float, *, asked_s: float | None = None) -> float:
        """Return the seconds to wait after the `failures`-th failure.

        Args:
            failures: how many attempts have failed.
            fraction: a random number in [0, 1).
            asked_s: how long the other side asks to wait.
        """
        return max(min(asked_s or 0.0, self.max_s), self._backoff_s(failures, fraction))

    def _backoff_s(self, failures: int, fraction: float) -> float:
        if self.backoff == "none":
            return 0.0
        grown = self.initial_s * (self.factor ** (failures - 1) if self.backoff == "exponential" else 1.0)
        return max(0.0, min(grown, self.max_s) * (1 + self.jitter * (2 * fraction - 1)))
