"""The hint for a path that a run does not have names the nearest one, and the command that lists all."""

from __future__ import annotations

import pytest

from flujo.domain.paths import StepPath
from flujo.domain.unknown_steps import unknown_step

KNOWN = [StepPath(each) for each in ("", "lines", "lines[0]/gist", "lines[1]/gist", "my%20step")]
LISTS = "`flujo trace r1` lists all steps"


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("lines.0/gst", "lines[0]/gist"),
        ("gist", "lines[0]/gist"),
        ("gst", "lines[0]/gist"),
        ("my stp", "my step"),
        ("nothing", None),
    ],
)
def test_the_nearest_path_and_the_command_that_lists_all(typed: str, near: str | None) -> None:
    expected = LISTS if near is None else f"did you mean `{near}`? {LISTS}"
    assert unknown_step(typed, KNOWN, "r1") == expected
