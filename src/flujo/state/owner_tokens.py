"""The token of a run's owner: another process on this host can check whether that owner is dead."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

UNKNOWN = "-"
HAS_BOOT_CLOCK = hasattr(time, "CLOCK_BOOTTIME")


@dataclass(frozen=True, slots=True)
class Owner:
    """The parts of an owner token."""

    execution: str
    """Random: two stores of one process are two owners. Then, where it is known, `@CLOCK@EPOCH`: the time
    namespace, and the time of day at which the clock of this boot was zero, as the owner saw it."""
    boot: str
    """This start of this host's kernel."""
    namespace: str
    """Where the process id counts; two containers of one host have two."""
    pid: int
    started: str
    """When the process started, in the kernel's ticks: process ids are used again."""

    def __str__(self) -> str:
        return f"{self.execution}:{self.boot}:{self.namespace}:{self.pid}:{self.started}"


def new_token() -> str:
    """Return a token for a store of this process."""
    pid = os.getpid()
    started, _ = _started(pid)
    execution, clock = secrets.token_hex(8), _namespace("time")
    if HAS_BOOT_CLOCK and UNKNOWN not in (_boot(), clock):
        execution = f"{execution}@{clock}@{time.time() - time.clock_gettime(time.CLOCK_BOOTTIME):.6f}"
    return str(Owner(execution, _boot(), _namespace("pid"), pid, started or UNKNOWN))


def lease_clock(token: str | None) -> float | None:
    """Return the time by which the lease of an owner of this boot is measured; None for another owner.

    It is the clock of the boot, which cannot be set, moved to the time of day at which the owner began.
    """
    epoch = None if token is None else _epoch(token, os.getpid())
    return None if epoch is None else time.clock_gettime(time.CLOCK_BOOTTIME) + epoch


@lru_cache(maxsize=64)
def _epoch(token: str, _: int) -> float | None:
    """Return the time of day at which the clock of an owner of this boot was zero; None for another owner.

    Kept for the process of this id, because `/proc` always says the same of it and each lease needs it.
    """
    owner = _parse(token)
    if owner is None or not HAS_BOOT_CLOCK or owner.boot != _boot():
        return None
    match owner.execution.split("@"):
        case [_, namespace, epoch] if namespace == _namespace("time"):
            with suppress(ValueError):
                return float(epoch)
    return None


def is_provably_dead(token: str) -> bool:
    """Return whether the process behind `token` is certainly gone.

    False whenever that cannot be known: another host or container, a token of another form, a system
    without `/proc`. Then only the lease decides.
    """
    owner = _parse(token)
    if owner is None or UNKNOWN in (owner.boot, owner.namespace, owner.started):
        return False
    if owner.boot != _boot() or owner.namespace != _namespace("pid"):
        return False
    started, state = _started(owner.pid)
    if started is None:
        return _is_gone(owner.pid)
    return started != owner.started or state in ("Z", "X")


def _parse(token: str) -> Owner | None:
    parts = token.split(":")
    if len(parts) != 5 or not parts[3].isdigit():
        return None
    execution, boot, namespace, pid, started = parts
    return Owner(execution, boot, namespace, int(pid), started)


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip() or UNKNOWN


def _namespace(kind: str) -> str:
    try:
        return str(Path(f"/proc/self/ns/{kind}").stat().st_ino)
    except OSError:
        return UNKNOWN


def _started(pid: int) -> tuple[str | None, str]:
    """Return a process's start time and state; None when `/proc` does not show it."""
    # The second field is the command in parentheses, which may hold blanks and parentheses itself.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[19], fields[0]) if len(fields) > 19 else (None, "")


def _is_gone(pid: int) -> bool:
    # `/proc` may hide other users' processes (hidepid), so the kernel is checked too.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
