"""`flujo trace` says where an executor has executed the callable of each attempt."""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

CODE = """\
import os
from pathlib import Path


def second(data: str) -> int:
    if not Path(data).exists():
        Path(data).touch()
        raise ValueError("the first time")
    return os.getpid()
"""

BLUEPRINT = """\
version: "1"
name: far
input_schema: {type: string}
steps:
  - name: second
    call: skills.far:second
    config: {executor: cores, max_retries: 1, retry: {backoff: none}}
"""


def test_a_trace_says_where_each_attempt_ran(project: Project, flujo: Flujo) -> None:
    (project.root / "skills/far.py").write_text(CODE, "utf-8")
    project.blueprint("far", BLUEPRINT)
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as settings:
        settings.write('\n[executors.cores]\nkind = "processes"\nsize = 1\n')
    done = flujo("run", "far", "--input", str(project.root / "begun"), "--run-id", "far")
    assert done.exit_code == 0, done.output
    pid = int(done.stdout)

    (step,) = json.loads(flujo("trace", "far", "--json").stdout)["children"]
    failed, completed = [made["ran"] for made in step["attempts_made"]]
    assert [{**ran, "seconds": 0} for ran in [*failed, *completed]] == 2 * [
        {"executor": "cores", "host": platform.node(), "pid": pid, "seconds": 0}
    ]
    assert step["detail"]["ran"] == completed

    where = rf"cores: host {re.escape(platform.node())}, process {pid}, \d\.\ds"
    text = flujo("trace", "far").stdout
    assert re.search(rf"ran +{where}\n", text)
    assert re.search(rf"attempt 1: ValueError: the first time .* on {where}\n", text)
    html = flujo("trace", "far", "--format", "html").stdout
    assert len(re.findall(rf"on {where}", html)) == 2
