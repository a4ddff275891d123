"""Which owners are provably dead; otherwise the lease decides."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from flujo.state import owner_tokens


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def token(**parts: object) -> str:
    """Return the token of this process with changed `parts`."""
    names = ("execution", "boot", "namespace", "pid", "started")
    mine = dict(zip(names, owner_tokens.new_token().split(":"), strict=True))
    return ":".join(str(part) for part in (mine | parts).values())


def test_this_process_counts_as_alive() -> None:
    assert not owner_tokens.is_provably_dead(owner_tokens.new_token())


@pytest.mark.guarantee("G2", "G4", "G5")
def test_a_process_that_grows_stays_alive() -> None:
    """The start time of a process stands beside its size in `/proc`."""
    before = owner_tokens.new_token()
    grown = bytearray(64 << 20)
    assert not owner_tokens.is_provably_dead(before)
    assert grown


def test_a_process_that_has_ended_is_dead(gone: int) -> None:
    assert owner_tokens.is_provably_dead(token(pid=gone))


def test_another_process_with_the_same_number_does_not_keep_an_owner_alive() -> None:
    assert owner_tokens.is_provably_dead(token(started=1))


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet reaped
        started = owner_tokens._started(process.pid)[0]
        assert owner_tokens.is_provably_dead(token(pid=process.pid, started=started))


@pytest.mark.parametrize("part", ["boot", "namespace"])
@pytest.mark.parametrize("value", ["another", owner_tokens.UNKNOWN])
def test_the_state_of_a_process_on_another_machine_is_unknown(gone: int, part: str, value: str) -> None:
    assert not owner_tokens.is_provably_dead(token(pid=gone, **{part: value}))


def test_the_state_of_a_process_without_a_start_time_is_unknown(gone: int) -> None:
    assert not owner_tokens.is_provably_dead(token(pid=gone, started=owner_tokens.UNKNOWN))


@pytest.mark.parametrize("text", ["", "-", "a:b:c:d:e", "a:b:c:-1:e", "a:b:1:e"])
def test_the_owner_of_an_unknown_token_format_is_unknown(text: str) -> None:
    assert not owner_tokens.is_provably_dead(text)


def test_two_stores_of_one_process_are_two_owners() -> None:
    assert owner_tokens.new_token() != owner_tokens.new_token()


@pytest.mark.skipif(not owner_tokens.HAS_BOOT_CLOCK, reason="no clock of the boot")
@pytest.mark.guarantee("G17")
def test_the_lease_of_an_owner_of_this_boot_is_measured_by_the_clock_of_the_boot() -> None:
    mine = owner_tokens.new_token()
    execution, namespace, _ = mine.split(":")[0].split("@")
    first = owner_tokens.lease_clock(mine)
    second = owner_tokens.lease_clock(token(execution=f"{execution}@{namespace}@0"))
    assert first is not None
    assert second is not None
    assert abs(first - time.time()) < 60
    assert abs(second - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60


@pytest.mark.guarantee("G17")
def test_the_clock_of_another_owner_is_unknown() -> None:
    execution, namespace, epoch = owner_tokens.new_token().split(":")[0].split("@")
    others = [
        None,
        "no token",
        token(boot="another"),
        token(execution=execution),
        token(execution=f"{execution}@another@{epoch}"),
        token(execution=f"{execution}@{namespace}@then"),
    ]
    assert [owner_tokens.lease_clock(other) for other in others] == [None] * len(others)
