"""Runs of blueprints whose agents call tools of a real MCP server; the model is a scripted provider."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import Provider, Response, provider_server
from flujo import Flujo, read_blueprint
from flujo.domain.run import RunStatus
from flujo.exceptions import BlueprintError, InputRejected, LockMismatch, McpServerFailed
from flujo.services.checks import locking
from flujo.services.project.project import find_project
from local_mcp import children, shop_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

BLUEPRINT = """\
version: "1"
name: desk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-5-mini
    tools:
      - {mcp: shop, allow: [ALLOW], effect: EFFECT}
steps:
  - {kind: granular, name: serve, agent: clerk, input: "{{ input }}", MORE}
"""


class Project:
    """A folder with a blueprint, an MCP server and a provider."""

    def __init__(self, folder: Path, provider: Provider) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.txt"
        self.ledger.touch()
        self.provider = provider
        (folder / "blueprints").mkdir()
        self.settings()

    def settings(self, more: str = "", **env: str) -> None:
        """Write flujo.toml."""
        server = shop_toml(**{"LEDGER": self.ledger, **env})
        (self.folder / "flujo.toml").write_text(f"{server}timeout = 60\n{more}")

    def blueprint(self, allow: str, effect: str = "unsafe", more: str = "max_turns: 5") -> str:
        """Write the blueprint, and return its path."""
        text = BLUEPRINT.replace("ALLOW", allow).replace("EFFECT", effect).replace("MORE", more)
        path = self.folder / "blueprints" / "desk.yaml"
        path.write_text(text)
        return str(path)

    def runner(self, allow: str, effect: str = "unsafe", more: str = "max_turns: 5") -> Flujo[Any, Any, Any]:
        """Return a runner of the blueprint."""
        return Flujo(read_blueprint(self.blueprint(allow, effect, more)))

    def model_calls(self, name: str, arguments: dict[str, Any]) -> None:
        """Let the model call a tool, and then answer."""
        self.provider.will_answer(Response(tool_call=(name, arguments)), "done")

    @property
    def told(self) -> str:
        """The body of the last request to the model."""
        return str(self.provider.requests[-1])

    @property
    def effects(self) -> str:
        """What the server has recorded."""
        return self.ledger.read_text()

    def lock(self) -> None:
        """Lock the blueprints."""
        locking.write(find_project(self.folder))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with provider_server() as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("FLUJO_ENV", raising=False)
        monkeypatch.chdir(tmp_path)
        yield Project(tmp_path, provider)
    assert children() == [], "no server outlives its run"


async def test_the_model_gets_the_result_of_a_tool(project: Project) -> None:
    project.model_calls("lookup", {"name": "ada"})
    async with project.runner("lookup", "read") as runner:
        result = await runner.run_result_async("who is ada?")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert "ada: gold" in project.told


async def test_a_tool_outside_of_the_list_does_not_exist_for_the_model(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 1})
    async with project.runner("lookup", "read") as runner:
        await runner.run_result_async("refund!")
    assert "there is no tool `refund`" in project.told
    assert project.effects == ""


async def test_a_recorded_call_carries_its_key(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 5})
    async with project.runner("refund", more="enforce_idempotency: true") as runner:
        result = await runner.run_result_async("refund a")
    assert result.output == "done"
    *_, key = project.effects.split()
    assert len(key) > 20


async def test_a_server_that_dies_after_its_effect_leaves_the_call_in_doubt(project: Project) -> None:
    project.model_calls("refund_and_die", {"order": "a"})
    async with project.runner("refund_and_die", more="enforce_idempotency: true") as runner:
        result = await runner.run_result_async("refund a")
        assert result.status is RunStatus.PAUSED
        assert project.effects.startswith("refund a ")
        resolved = await runner.resolve_async(result.run_id, "done", result="refunded")
    assert (resolved.status, resolved.output) == (RunStatus.COMPLETED, "done")
    assert len(project.effects.splitlines()) == 1
    assert "refunded" in project.told


async def test_an_error_of_a_tool_with_an_effect_is_in_doubt_and_not_for_the_model(project: Project) -> None:
    project.model_calls("fail", {"why": "no"})
    async with project.runner("fail", more="enforce_idempotency: true") as runner:
        assert (await runner.run_result_async("x")).status is RunStatus.PAUSED


async def test_an_error_of_a_tool_that_only_reads_goes_to_the_model(project: Project) -> None:
    project.model_calls("fail", {"why": "no"})
    async with project.runner("fail", "read") as runner:
        assert (await runner.run_result_async("x")).output == "done"
    assert "Error executing tool fail" in project.told


async def test_a_large_result_is_a_blob_beside_the_journal(project: Project) -> None:
    project.model_calls("large", {"count": 200_000})
    async with project.runner("large", "read") as runner:
        assert (await runner.run_result_async("x")).output == "done"
    assert "x" * 200_000 in project.told
    with closing(sqlite3.connect(project.folder / ".flujo" / "state.db")) as state:
        sizes = [size for (size,) in state.execute("SELECT size FROM blobs")]
    assert max(sizes) > 200_000


async def test_a_locked_server_with_other_tools_does_not_run(project: Project) -> None:
    project.blueprint("lookup", "read")
    await in_thread(project.lock)
    assert 'description = "Look a customer up"' in (project.folder / "flujo.lock").read_text()
    project.settings(CHANGED="lookup")
    async with project.runner("lookup", "read") as runner:
        with pytest.raises(
            LockMismatch, match="tool `lookup`: its description was 'Look a customer up' and is"
        ):
            await runner.run_result_async("x")
    assert project.provider.requests == []


async def test_a_required_lock_must_have_the_server(project: Project) -> None:
    project.settings("[lockfile]\nenabled = true\n")
    project.blueprint("lookup", "read")
    await in_thread(project.lock)
    project.model_calls("lookup", {"name": "ada"})
    async with project.runner("lookup", "read") as runner:
        assert (await runner.run_result_async("x")).output == "done"
    lock = project.folder / "flujo.lock"
    lock.write_text(lock.read_text().replace("mcp.shop", "mcp.other"))
    with pytest.raises(LockMismatch, match="MCP server shop is not in the lock"):
        project.runner("lookup", "read")


APPROVED = "unsafe, approve: {when: args.cents > 100, message: 'Refund {{ args.cents }}?', editable: true}"


async def waiting(runner: Flujo[Any, Any, Any], cents: int) -> Any:
    """Start a run whose model requests a refund, and return the only question."""
    result = await runner.run_result_async(f"refund {cents}")
    assert result.status is RunStatus.PAUSED
    [question] = result.pauses
    return result.run_id, question


async def test_a_call_waits_for_an_approval_and_is_sent_once_with_its_key(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 500})
    async with project.runner("refund", APPROVED) as runner:
        run, question = await waiting(runner, 500)
        assert "step 'serve' wants to call `refund` (effect: unsafe).\nRefund 500?" in question.message
        assert project.effects == ""
        result = await runner.resume_async(run, {"approved": True, "digest": question.digest})
        assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    [line] = project.effects.splitlines()
    assert line.startswith("refund a 500 ")
    assert not line.endswith("None")


async def test_changed_arguments_are_those_of_the_call_and_fit_the_schema_of_the_server(
    project: Project,
) -> None:
    project.model_calls("refund", {"order": "a", "cents": 500})
    async with project.runner("refund", APPROVED) as runner:
        run, question = await waiting(runner, 500)
        answer = {"approved": True, "digest": question.digest}
        with pytest.raises(InputRejected, match="cents"):
            await runner.resume_async(run, {**answer, "arguments": {"order": "a", "cents": "few"}})
        await runner.resume_async(run, {**answer, "arguments": {"order": "a", "cents": 5}})
    assert project.effects.startswith("refund a 5 ")


async def test_a_denied_call_is_not_sent(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 500})
    async with project.runner("refund", APPROVED) as runner:
        run, question = await waiting(runner, 500)
        answer = {"approved": False, "reason": "not our mistake", "digest": question.digest}
        assert (await runner.resume_async(run, answer)).output == "done"
    assert "a human denied it: not our mistake" in project.told
    assert project.effects == ""


async def test_a_call_that_needs_no_approval_is_sent_at_once(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 50})
    async with project.runner("refund", APPROVED) as runner:
        assert (await runner.run_result_async("refund 50")).output == "done"
    assert project.effects.startswith("refund a 50 ")


async def test_an_approval_does_not_hold_for_a_server_that_has_changed(project: Project) -> None:
    project.model_calls("refund", {"order": "a", "cents": 500})
    async with project.runner("refund", APPROVED) as runner:
        run, question = await waiting(runner, 500)
    project.settings(CHANGED="refund")
    async with project.runner("refund", APPROVED) as runner:
        result = await runner.resume_async(run, {"approved": True, "digest": question.digest})
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.code == "FLJ419"
    assert project.effects == ""


async def test_an_idempotent_call_in_doubt_is_sent_again_with_the_same_key(project: Project) -> None:
    project.model_calls("refund_and_die_once", {"order": "a"})
    async with project.runner("refund_and_die_once", "idempotent", "enforce_idempotency: true") as runner:
        result = await runner.run_result_async("refund a")
    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    first, second = project.effects.splitlines()
    assert first == second


async def test_a_server_that_does_not_start_starts_no_run(project: Project) -> None:
    path = project.blueprint("lookup", "read")
    (project.folder / "flujo.toml").write_text("[mcp.shop]\ncommand = 'no-such-program'\n")
    async with Flujo(read_blueprint(path)) as runner:
        with pytest.raises(McpServerFailed, match=r"flujo.toml:1: .*there is no program `no-such-program`"):
            await runner.run_result_async("x", run_id="never")
    assert project.provider.requests == []


def test_a_name_that_the_locked_server_lacks_is_a_finding(project: Project) -> None:
    project.blueprint("lookup", "read")
    project.lock()
    with pytest.raises(BlueprintError) as raised:
        project.runner("lokup", "read")
    [finding] = raised.value.diagnostics
    assert (finding.code, finding.message) == (
        "FLJ453",
        "MCP server 'shop' has no tool `lokup` in flujo.lock",
    )


@pytest.mark.parametrize(
    ("tool", "code"),
    [("{mcp: shpo}", "FLJ452"), ("{mcp: shop, effect: transactional}", "FLJ454")],
)
def test_what_a_server_cannot_be_is_a_finding(project: Project, tool: str, code: str) -> None:
    path = Path(project.blueprint("lookup", "read"))
    path.write_text(path.read_text().replace("{mcp: shop, allow: [lookup], effect: read}", tool))
    with pytest.raises(BlueprintError) as raised:
        read_blueprint(str(path))
    assert code in [each.code for each in raised.value.diagnostics]


async def in_thread(work: Any) -> None:
    """Do work that runs an event loop of its own."""
    await asyncio.to_thread(work)
