"""The states of a run and its legal moves."""

from __future__ import annotations

import pytest

from flujo.domain.run import LEGAL_MOVES, PauseKind, RunStatus


def test_every_state_lists_its_legal_moves() -> None:
    assert set(LEGAL_MOVES) == set(RunStatus)


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.CANCELLED])
def test_nothing_follows_a_final_state(status: RunStatus) -> None:
    assert status.is_settled
    assert not any(status.can_become(other) for other in RunStatus)


@pytest.mark.parametrize("status", [status for status in RunStatus if not status.is_settled])
def test_every_other_state_can_run_again_and_can_be_cancelled(status: RunStatus) -> None:
    assert status.can_become(RunStatus.RUNNING)
    assert status.can_become(RunStatus.CANCELLED)


def test_only_a_running_run_completes() -> None:
    assert [s for s in RunStatus if s.can_become(RunStatus.COMPLETED)] == [RunStatus.RUNNING]


@pytest.mark.parametrize("kind", PauseKind)
def test_messages_can_name_every_kind_of_pause(kind: PauseKind) -> None:
    assert kind.name_of_one
    assert kind.name_of_several
