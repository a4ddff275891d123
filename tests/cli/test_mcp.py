"""Tools of an MCP server on the command line: what each command shows of them, and that none shows a secret."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

import warm
from agents.provider_server import Response, provider_server
from local_mcp import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agents.provider_server import Provider

FLUJO = [sys.executable, "-m", "flujo"]
SECRETS = {"SHOP_TOKEN": "ahChoo7ietee", "SHOP_PASSWORD": "Eiph2ohyoaje"}
SETTINGS = f"""\
[mcp.shop]
command = {warm.python()!r}
args = [{str(PROGRAM)!r}, "stdio", "--as=${{SHOP_PASSWORD}}"]
timeout = 120
env = {{TOKEN = "${{SHOP_TOKEN}}", LEDGER = "ledger.txt"}}
"""
BLUEPRINT = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-5-mini
    model_settings: {max_tokens: 100}
    tools:
      - {mcp: shop, allow: [lookup, leak], effect: read}
      - {mcp: shop, allow: [refund], approve: {message: "Refund {{ args.cents }}?"}, in_doubt: fail}
steps:
  - {kind: granular, name: serve, agent: clerk, input: "{{ input }}", max_turns: 5}
"""


class Desk:
    """A project with the server, and all that its commands have printed."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        self.folder = folder
        self.printed = ""
        self._env = {**os.environ, **provider.environment, **SECRETS}
        (folder / "flujo.toml").write_text(SETTINGS)
        (folder / "blueprints").mkdir()
        (folder / "blueprints" / "desk.yaml").write_text(BLUEPRINT)

    def flujo(self, *words: str) -> str:
        """Return the output of a command."""
        done = warm.run([*FLUJO, *words], cwd=self.folder, env=self._env, capture_output=True, timeout=600)
        self.printed += str(done.stdout) + str(done.stderr)
        return str(done.stdout) + str(done.stderr)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path, provider: Provider) -> Desk:
    return Desk(tmp_path, provider)


def test_tools_of_a_server_are_shown_before_in_and_after_a_run(desk: Desk, provider: Provider) -> None:
    refund = Response(tool_call=("refund", {"order": "a", "cents": 500}))
    provider.will_answer(Response(tool_call=("lookup", {"name": "ada"})), refund, "Refunded.")
    explained = desk.flujo("explain", "desk")
    assert "the tool mcp:shop/lookup, mcp:shop/leak, which clerk may call; effect: read" in explained
    assert "before it calls `mcp:shop/refund`, without a deadline: a human approves each call" in explained
    graph = desk.flujo("graph", "desk")
    assert "mcp:shop/refund: unsafe, a human approves each call, not in the lock" in graph
    desk.flujo("run", "desk", "--input", "Refund a.", "--run-id", "desk")
    shown = desk.flujo("tasks", "show", "desk")
    assert "step 'serve' wants to call `refund` (effect: unsafe).\nRefund 500?" in shown
    assert '{"cents":500,"order":"a"}' in shown
    digest = shown.partition("digest:")[2].split()[0]
    given = ["--field", "approved=true", "--field", f"digest={digest}", "--by", "ana"]
    assert "Refunded." in desk.flujo("tasks", "resume", "desk", *given)
    traced = desk.flujo("trace", "desk")
    assert "lookup" in traced
    assert "approved by ana" in traced
    assert "refunded 500" in desk.flujo("trace", "desk", "serve", "--messages")


def test_no_command_shows_a_secret_of_a_server(desk: Desk, provider: Provider) -> None:
    leaks = [Response(tool_call=("leak", {"way": way})) for way in ("error", "result")]
    provider.will_answer(leaks[0], "Done.", leaks[1])
    assert "Done." in desk.flujo("run", "desk", "--input", "x", "--run-id", "desk")
    assert "FLJ416" in desk.flujo("run", "desk", "--input", "x"), "a secret in a result ends the step"
    for words in (
        ["trace", "desk", "--json"],
        ["trace", "desk", "serve", "--messages"],
        ["doctor"],
        ["lock"],
    ):
        desk.flujo(*words)
    told = str(provider.requests)
    assert "wrong secrets" in told
    kept = [file.read_bytes() for file in desk.folder.rglob("*") if file.is_file()]
    for name, secret in SECRETS.items():
        assert secret not in told, f"the model sees {name}"
        assert secret not in desk.printed, f"a command prints {name}"
        assert not any(secret.encode() in one for one in kept), f"a file has {name}"
