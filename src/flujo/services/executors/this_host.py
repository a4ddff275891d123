"""What this host has, and the refusal of units that need more."""

from __future__ import annotations

from functools import cache

from flujo.domain import host
from flujo.domain.executor import Needs
from flujo.exceptions import ResourcesUnavailable


@cache
def this_host() -> Needs:
    """Return the cores and the memory that this process may use; no GPU, because nothing assigns one here."""
    return Needs(cpu=host.cores(), memory=host.memory())


def require_here(needs: Needs, executor: str) -> None:
    """Refuse needs that this host cannot meet. Nothing is reserved for those that it can.

    Raises:
        ResourcesUnavailable: names what the host has not.
    """
    has = this_host()
    lacking = needs.beyond(has)
    if lacking is not None:
        raise ResourcesUnavailable(
            f"executor {executor!r} executes on this host, which has {has}, and the step needs {lacking}",
            hint='lower `resources` of the step, or use an executor of `kind = "dask"` or `"ray"`',
            executor=executor,
        )
