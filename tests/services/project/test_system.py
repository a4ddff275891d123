"""Generated run ids: unique, in the order of their time, and different in a forked child."""

from __future__ import annotations

import os
import re
import time

import pytest

from flujo.services.project.system import SystemRandom


def test_run_ids_are_unique_and_begin_with_the_time() -> None:
    ids = [SystemRandom().run_id() for _ in range(2000)]
    assert len({each[10:] for each in ids}) == 2000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    first, last = int(ids[0][:10], 16), int(ids[-1][:10], 16)
    assert (last - first) % 16**10 < 16**5 * 10  # ten minutes, also when the time repeats in between


def test_later_runs_have_greater_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for moment in (1_764_000_000.0, 1_764_000_000.0001, 1_764_000_060.0, 1_764_003_600.0):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        ids.append(SystemRandom().run_id())
    assert ids == sorted(ids)
    assert ids[0][:5] != ids[2][:5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process")
def test_a_forked_child_draws_other_ids() -> None:
    SystemRandom().run_id()  # digits are fetched in advance
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, SystemRandom().run_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode()[10:] != SystemRandom().run_id()[10:]
    os.close(reading)
    os.close(writing)
