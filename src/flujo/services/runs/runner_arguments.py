"""Checks of what a program passes to a runner, so that a wrong type is an error where it is passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.wording import repr_short
from flujo.exceptions import SettingsError
from flujo.services.given import capable, whole_number
from flujo.services.project.recovery_policy import RecoveryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.ports import Sink

_METHODS = {
    "store": ("StateStore", ("accept", "claim", "write", "runs", "entries")),
    "cache": ("CacheBackend", ("get", "put")),
    "binding": ("Binding", ("prepare", "evaluator", "agent", "schema")),
    "clock": ("Clock", ("now", "monotonic", "sleep")),
    "random": ("Random", ("run_id", "fraction")),
}
"""For each argument that implements a protocol: the protocol, and methods that tell it from other objects."""


def check_arguments(hooks: Any, recovery: Any, range_length: Any, others: Mapping[str, Any]) -> None:
    """Check the arguments of a runner that nothing else checks.

    Raises:
        SettingsError: one is of the wrong type.
    """
    if not isinstance(hooks, list | tuple):
        raise SettingsError(f"`hooks` is {repr_short(hooks)}", hint="pass a list of async callables")
    for hook in hooks:
        checked_sink(hook, "hooks")
    if not isinstance(recovery, bool | RecoveryPolicy):
        raise SettingsError(
            f"`recovery` is {repr_short(recovery)}", hint="pass True, False or a `RecoveryPolicy(…)`"
        )
    if whole_number(range_length, "range_length") < 1:
        raise SettingsError(f"`range_length` is {range_length}", hint="pass 1 or more")
    for name, value in others.items():
        if value is not None:
            kind, methods = _METHODS[name]
            capable(value, methods, name, kind)


def checked_sink(sink: Any, name: str = "sink") -> Sink | None:
    """Return what gets the events of a run.

    Raises:
        SettingsError: it cannot be called.
    """
    if sink is None or callable(sink):
        return sink  # type: ignore[no-any-return]  # whether it is async shows at its first call
    raise SettingsError(f"`{name}` has {repr_short(sink)}", hint="pass an async callable that takes an event")
