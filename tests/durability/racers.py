"""Processes that race: each prepares, waits for the others, and reports what it has won."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import warm

if TYPE_CHECKING:
    from pathlib import Path


def race(program: Path, racers: int, uri: str, *words: str) -> dict[str, Any]:
    """Start `program URI NAME WORDS…` once for each racer, let all begin at once, and return the report of each.

    A program prints `ready`, waits for a line, and prints its report as JSON.
    """
    started = {str(number): _started([str(program), uri, str(number), *words]) for number in range(racers)}
    for racer in started.values():
        assert racer.stdout.readline() == "ready\n"
    for racer in started.values():
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return {name: json.loads(racer.communicate(timeout=1200)[0]) for name, racer in started.items()}


def _started(command: list[str]) -> warm.Popen:
    return warm.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
