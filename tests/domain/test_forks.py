"""Objects are renewed in a forked child only, and are not kept alive for it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from flujo.domain.forks import renew_in_children

PROGRAM = """
import os
from flujo.domain.forks import renew_in_children

class Thing:
    renewed = 0
    def renew(self):
        self.renewed += 1

thing = Thing()
renew_in_children(thing, type(thing).renew)
pid = os.fork()
if not pid:
    os._exit(thing.renewed)
print(thing.renewed, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Thing:
    """An object that can be renewed."""

    def renew(self) -> None:
        """Do nothing."""


def test_a_child_renews_and_its_parent_does_not() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["0", "1"]


@pytest.mark.usefixtures("own_objects")
def test_an_object_is_not_kept_alive() -> None:
    thing = Thing()
    renew_in_children(thing, Thing.renew)
    left = weakref.ref(thing)
    del thing
    gc.collect()
    assert left() is None
