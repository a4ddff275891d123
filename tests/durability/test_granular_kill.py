"""`kill -9` of a real `flujo run` in the middle of a conversation: `flujo resume` repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import Provider, provider_server
from agents.provider_server import Response as Sent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(900)
FLUJO = [sys.executable, "-m", "flujo"]
TURNS = 4
"""Turns with a tool call, before the answer."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, store_uri: str) -> Path:
    """Return a project whose agent has one slow tool, which writes a line for each call."""
    (tmp_path / "flujo.toml").write_text(
        f'state_uri = "{store_uri}"\n[blueprints]\nallow_callables = ["skills.*"]\n'
    )
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "work.py").write_text(
        dedent(
            """
            import os
            import time

            import flujo


            @flujo.tool(effect="idempotent")
            def note(number: int, idempotency_key: str) -> str:
                "Note a number."
                file = os.open("witness.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(file, f"{number} {idempotency_key}\\n".encode())
                os.close(file)
                while os.path.exists(f"hold-{number}"):
                    time.sleep(0.01)
                return f"noted {number}"
            """
        )
    )
    (tmp_path / "blueprints").mkdir()
    (tmp_path / "blueprints" / "talk.yaml").write_text(
        dedent(
            """
            version: "1"
            name: talk
            input_schema: {type: string}
            agents:
              helper:
                model: openai-chat:gpt-4o-mini
                instructions: Note the numbers.
                tools: ["skills.work:note"]
                model_settings: {max_tokens: 100}
            steps:
              - {kind: granular, name: help, agent: helper, enforce_idempotency: true}
            """
        )
    )
    warm.run([*FLUJO, "migrate"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def answer(request: dict[str, Any]) -> Sent:
    """Return the next tool call, or the answer, from the conversation that the request contains."""
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    return Sent(tool_call=("note", {"number": turn})) if turn < TURNS else Sent("All noted.")


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("killed_in", [0, 2])
def test_a_killed_conversation_continues_with_the_next_tool_call(
    project: Path, provider: Provider, killed_in: int
) -> None:
    provider.will_answer(answer)
    environment = {**os.environ, **provider.environment}
    hold = project / f"hold-{killed_in}"
    hold.touch()
    words = [*FLUJO, "run", "talk", "--input", "Go.", "--run-id", "talk"]
    with warm.Popen(
        words, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        witness = project / "witness.log"
        while not (witness.exists() and any(line[0] == str(killed_in) for line in _lines(witness))):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    before = len(provider.requests)
    assert before == killed_in + 1
    hold.unlink()
    done = warm.run(
        [*FLUJO, "resume", "talk"], cwd=project, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "All noted."
    assert len(provider.requests) == TURNS + 1, "no recorded request was made again"
    calls = Counter(line[0] for line in _lines(witness))
    assert calls == Counter({str(n): 1 + (n == killed_in) for n in range(TURNS)})
    keys = {line[1] for line in _lines(witness)}
    assert len(keys) == TURNS, "the interrupted call was made again under its key"
    sent = json.dumps(provider.requests[-1]["messages"])
    assert all(f"noted {n}" in sent for n in range(TURNS))


def _lines(witness: Path) -> list[list[str]]:
    return [line.split() for line in witness.read_text("utf-8").splitlines()]
