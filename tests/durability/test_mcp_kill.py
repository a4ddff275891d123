"""`kill -9` of a real `flujo run` or `flujo worker` in a call of an MCP tool: it is in doubt, or sent again with its key."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import warm
from agents.provider_server import Response, provider_server
from local_mcp import shop_toml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agents.provider_server import Provider

pytestmark = pytest.mark.timeout(900)
FLUJO = [sys.executable, "-m", "flujo"]
BLUEPRINT = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-5-mini
    model_settings: {max_tokens: 100}
    tools: [{mcp: shop, allow: [refund_and_wait], effect: EFFECT}]
steps:
  - {kind: granular, name: serve, agent: clerk, enforce_idempotency: true, max_turns: 3}
"""
RUN = ("run", "desk", "--input", "Refund a.", "--run-id", "desk")
WORKER = ("worker", "--once")


class Desk:
    """A project whose agent refunds through an MCP server, and the commands that run it."""

    def __init__(self, folder: Path, provider: Provider, uri: str) -> None:
        self._folder = folder
        self._env = {**os.environ, **provider.environment}
        self.hold = folder / "hold"
        self.hold.touch()
        self._ledger = folder / "ledger.txt"
        self._ledger.touch()
        server = shop_toml(LEDGER=self._ledger, HOLD=self.hold)
        (folder / "flujo.toml").write_text(f"state_uri = {uri!r}\n{server}timeout = 300\n")
        (folder / "blueprints").mkdir()
        self.flujo("migrate")

    def write(self, effect: str) -> None:
        """Write the blueprint."""
        (self._folder / "blueprints" / "desk.yaml").write_text(BLUEPRINT.replace("EFFECT", effect))

    @property
    def effects(self) -> list[str]:
        """The refunds in the world, each with its key."""
        return self._ledger.read_text("utf-8").splitlines()

    def flujo(self, *words: str) -> str:
        """Return the output of a command."""
        done = warm.run([*FLUJO, *words], cwd=self._folder, env=self._env, capture_output=True, timeout=600)
        return str(done.stdout) + str(done.stderr)

    def kill_in_call(self, *words: str) -> None:
        """Start a command that calls the server, and kill it once the server has refunded."""
        quiet = subprocess.DEVNULL
        with warm.Popen(
            [*FLUJO, *words], cwd=self._folder, env=self._env, stdout=quiet, stderr=quiet
        ) as command:
            while not self.effects:
                assert command.poll() is None
                time.sleep(0.02)
            command.send_signal(signal.SIGKILL)
            command.wait()
        self.hold.unlink()

    def approve(self) -> None:
        """Start a run whose call waits for a human, and approve it; no process continues the run."""
        self.flujo(*RUN)
        [question] = json.loads(self.flujo("tasks", "show", "desk", "--json"))["pauses"]
        digest = f"digest={question['digest']}"
        self.flujo("tasks", "resume", "desk", "--field", "approved=true", "--field", digest, "--detach")
        assert self.effects == []


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        running.will_answer(Response(tool_call=("refund_and_wait", {"order": "a"})), "Refunded.")
        yield running


@pytest.fixture
def desk(tmp_path: Path, provider: Provider, store_uri: str) -> Desk:
    return Desk(tmp_path, provider, store_uri)


def is_in_doubt(desk: Desk) -> bool:
    """Return whether a question with the key of the call is open, and listed."""
    shown = desk.flujo("tasks", "show", "desk")
    key = desk.effects[0].split()[-1]
    listed = json.loads(desk.flujo("tasks", "list", "--status", "in_doubt", "--json"))
    return (
        "mcp:shop/refund_and_wait" in shown and key in shown and [run["run_id"] for run in listed] == ["desk"]
    )


@pytest.mark.guarantee("G3")
def test_an_unsafe_call_of_a_killed_run_is_in_doubt_until_a_human_says_how_it_ended(
    desk: Desk, provider: Provider
) -> None:
    desk.write("unsafe")
    desk.kill_in_call(*RUN)
    desk.flujo("resume", "desk")
    assert is_in_doubt(desk)
    assert len(provider.requests) == 1
    assert "Refunded." in desk.flujo("tasks", "resolve", "desk", "--as", "done", "--result", '"refunded"')
    assert len(desk.effects) == 1
    assert len(provider.requests) == 2, "no recorded request was made again"


@pytest.mark.guarantee("G3")
def test_an_idempotent_call_of_a_killed_run_is_sent_again_with_its_key(
    desk: Desk, provider: Provider
) -> None:
    desk.write("idempotent")
    desk.kill_in_call(*RUN)
    assert "Refunded." in desk.flujo("resume", "desk")
    first, second = desk.effects
    assert first == second
    assert len(provider.requests) == 2, "no recorded request was made again"


@pytest.mark.guarantee("G3")
def test_an_approved_unsafe_call_of_a_killed_worker_is_in_doubt_and_workers_finish_the_run(
    desk: Desk, provider: Provider
) -> None:
    desk.write("unsafe, approve: true")
    desk.approve()
    desk.kill_in_call(*WORKER)
    desk.flujo(*WORKER)
    assert is_in_doubt(desk)
    assert len(provider.requests) == 1
    desk.flujo("tasks", "resolve", "desk", "--as", "done", "--result", '"refunded"', "--detach")
    desk.flujo(*WORKER)
    assert json.loads(desk.flujo("tasks", "show", "desk", "--json"))["output"] == "Refunded."
    assert len(desk.effects) == 1
    assert len(provider.requests) == 2, "no recorded request was made again"


@pytest.mark.guarantee("G3")
def test_an_approved_idempotent_call_of_a_killed_worker_is_sent_again_by_another_worker(
    desk: Desk, provider: Provider
) -> None:
    desk.write("idempotent, approve: true")
    desk.approve()
    desk.kill_in_call(*WORKER)
    desk.flujo(*WORKER)
    assert json.loads(desk.flujo("tasks", "show", "desk", "--json"))["output"] == "Refunded."
    first, second = desk.effects
    assert first == second
    assert len(provider.requests) == 2, "no recorded request was made again"
