"""The programs that `warm` starts get nothing from a test but what the test gives them."""

from __future__ import annotations

import json
import os
import sys
from functools import cache, partial
from typing import TYPE_CHECKING

import warm

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_server_inherits_nothing_of_the_test_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project, word in (("first", "the project before"), ("second", "this project")):
        skills = tmp_path / project / "skills"
        skills.mkdir(parents=True)
        (skills / "__init__.py").touch()
        (skills / "words.py").write_text(f"WORD = {word!r}\n", "utf-8")
    environment = dict(os.environ)
    monkeypatch.setattr(warm, "_GIVEN", None)
    monkeypatch.setattr(warm, "start", partial(warm.start, "--cold"))
    monkeypatch.setattr(warm, "_folder", cache(warm._folder.__wrapped__))
    with monkeypatch.context() as test:
        test.chdir(tmp_path / "first")
        test.setattr(sys, "path", [str(tmp_path / "first"), *sys.path])
        test.setenv("PYTHONPATH", str(tmp_path / "first"))
        test.setenv("PYTHONHASHSEED", "0")
        warm._folder()
    code = (
        "import json, sys, skills.words as words\n"
        "print(json.dumps([words.WORD, sys.path, sys.flags.hash_randomization]))"
    )
    command = [sys.executable, "-c", code]
    second = {**environment, "PYTHONPATH": str(tmp_path / "second")}
    word, path, is_random = json.loads(warm.run(command, env=second, check=True, capture_output=True).stdout)
    assert word == "this project"
    assert str(tmp_path / "first") not in path
    assert is_random == sys.flags.hash_randomization
    beside = warm.run(command, cwd=tmp_path / "second", env=environment, check=True, capture_output=True)
    assert json.loads(beside.stdout)[0] == "this project"
