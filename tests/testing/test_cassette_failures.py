"""Runs with failed calls and failed requests become cassettes, which fail in the same places."""

from __future__ import annotations

import asyncio
import importlib
import sys
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.provider_server import Fault, Response, provider_server
from flujo.blueprint.yaml_writer import to_yaml
from flujo.domain.journal import RunId
from flujo.exceptions import CassetteMismatch, CassetteRefused
from flujo.services.admin.scaffold import scaffold
from flujo.services.project.project import find_project
from flujo.services.replay.cassette import Cassette
from flujo.services.runs.runner import Flujo
from flujo.services.workspace import Workspace
from flujo.testing import TestClock
from flujo.testing.cassettes import CassetteFailed, play_async, refusing_outside_calls, saved_async
from local_mcp import shop_toml
from properties.sample import tries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CODE = '''\
"""Calls that fail by their number, and in the beginning."""

from collections import Counter

SEEN = Counter()


def work(n: int, step: str) -> int:
    """Fail for multiples of three, and at the first two calls of a step for multiples of five."""
    SEEN[step, n] += 1
    if n % 3 == 0:
        raise KeyError("tota")
    if n % 5 == 0 and SEEN[step, n] < 3:
        raise ConnectionError("the line is down")
    return n + 1


def count(data: object) -> int:
    """Return another number at each call."""
    SEEN["count"] += 1
    return SEEN["count"]


def size(data: dict) -> int:
    """Return how much it is."""
    return len(str(data))


def lookup(name: str) -> str:
    """Look a customer up."""
    if name == "Eve":
        raise LookupError("no such customer")
    return f"{name} is a VIP"


def note(data: dict, context: object) -> str:
    """Change the context."""
    context.note = "seen"
    return "noted"
'''


def made(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make the project, and work in it."""
    scaffold(root, "desk")
    (root / "skills/flaky.py").write_text(CODE, "utf-8")
    patch.setattr(sys, "path", [*sys.path])
    patch.chdir(root)
    forget()
    return root


def forget() -> None:
    """Forget the modules of the project, with what they have counted."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "skills"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield made(tmp_path / "desk", monkeypatch)
    forget()


@dataclass
class Ran:
    """A run, its cassette, and what the cassette gives."""

    output: Any
    cassette: Cassette
    played: Any


async def run_save_play(root: Path, blueprint: Mapping[str, Any], given: Any) -> Ran:
    """Run a blueprint, save the run, forget the code, and play it."""
    (root / "blueprints/it.yaml").write_text(to_yaml({"version": "1", "name": "it", **blueprint}), "utf-8")
    workspace = Workspace(find_project(root))
    clock = TestClock(auto_advance=True)
    store, run = clock.memory_store(), RunId("first")
    async with workspace:
        pipeline = workspace.load("blueprints/it.yaml").handed_out()
        async with Flujo[Any, Any, Any](pipeline, store=store, clock=clock, recovery=False) as runner:
            result = await runner.run_result_async(given, run_id=run)
        assert result.success, result.error
        saved = await saved_async(workspace, store, run)
    path = root / "it.yaml"
    path.write_text(saved.cassette.to_text(), "utf-8")
    with refusing_outside_calls():
        played = await play_async(path)
    played.require_expected()
    return Ran(result.output, Cassette.open(path), played.output)


def call(name: str, value: str | int, **more: Any) -> dict[str, Any]:
    return {"name": name, "call": "skills.flaky:work", "with": {"n": value, "step": name}, **more}


async def test_items_fail_where_they_failed(project: Path) -> None:
    each = {"kind": "map", "name": "each", "over": "input", "on_error": "collect"}
    each["steps"] = [call("one", "{{ item }}")]  # type: ignore[assignment]  # a list
    ran = await run_save_play(project, {"steps": [each]}, [1, 3, 4, 6])
    assert [item["ok"] for item in ran.output] == [True, False, True, False]
    assert ran.output[1]["error"]["message"] == "KeyError: 'tota'"
    assert ran.played == ran.output
    assert [call.error is not None for call in ran.cassette.calls].count(True) == 2


async def test_retries_fail_as_often_as_they_did(project: Path) -> None:
    step = call("one", "{{ input }}", config={"max_retries": 2, "retry": {"on": ["ConnectionError"]}})
    ran = await run_save_play(project, {"steps": [step]}, 5)
    assert (ran.output, ran.played) == (6, 6)
    assert [each.error.type if each.error else None for each in ran.cassette.calls] == [
        "ConnectionError",
        "ConnectionError",
        None,
    ]


async def test_a_fallback_answers_where_it_did(project: Path) -> None:
    spare = {"call": "skills.flaky:count", "with": {"data": {}}}
    ran = await run_save_play(project, {"steps": [call("one", "{{ input }}", fallback=spare)]}, 3)
    assert (ran.output, ran.played) == (1, 1)


ASKS: dict[str, Any] = {
    "input_schema": {"type": "array", "items": {"type": "string"}},
    "agents": {
        "clerk": {
            "model": "openai-chat:gpt-5-mini",
            "tools": [{"call": "skills.flaky:lookup", "effect": "read"}],
        }
    },
}


def clerk(request: dict[str, Any]) -> Response:
    """Fail for Bob, look Ada and Eve up, and answer the rest at once."""
    messages = request["messages"]
    asked = str(messages[0]["content"])
    if "Bob" in asked:
        return Response(status=401)
    if messages[-1]["role"] == "tool":
        return Response(text=f"so {messages[-1]['content']}")
    for name in ("Ada", "Eve"):
        if name in asked:
            return Response(tool_call=("lookup", {"name": name}))
    return Response(text="nobody")


@pytest.mark.parametrize("kind", ["step", "granular"])
async def test_requests_and_tools_fail_where_they_failed(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ask = {"kind": kind, "name": "ask", "agent": "clerk", "input": "Who is {{ item }}?"}
    each = {"kind": "map", "name": "each", "over": "input", "on_error": "collect", "steps": [ask]}
    with provider_server() as server:
        server.will_answer(clerk)
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        ran = await run_save_play(project, {**ASKS, "steps": [each]}, ["Ada", "Bob", "Eve", "Bob", "Zoe"])
    # A conversation in turns continues after the error of a tool; the one attempt of a step fails with it.
    assert [item["ok"] for item in ran.output] == [True, False, kind == "granular", False, True]
    assert ran.output[1]["error"]["code"] == "FLJ302"
    assert ran.played == ran.output


async def test_a_request_that_was_repeated_is_repeated(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"max_retries": 1}
    steps = [
        {"name": "once", "agent": "clerk", "input": "Who is Zoe?", "config": config},
        {"kind": "granular", "name": "turns", "agent": "clerk", "input": "And Zoe?", "config": config},
    ]
    with provider_server() as server:
        server.will_answer(Fault.SERVER_ERROR, "Nobody.", Fault.SERVER_ERROR, "Still nobody.")
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        ran = await run_save_play(project, {**ASKS, "steps": steps}, [])
    assert (ran.output, ran.played) == ("Still nobody.", "Still nobody.")
    errors = [each.error is not None for said in ran.cassette.conversations for each in said.exchanges]
    assert errors == [True, False, True, False]


async def test_a_run_that_a_cassette_cannot_repeat_is_refused(project: Path) -> None:
    changing = call("one", "1", processors={"output": ["skills.flaky:count"]})
    with pytest.raises(CassetteRefused, match="it ends otherwise:\nthe output differs"):
        await run_save_play(project, {"steps": [changing]}, {})


async def test_a_run_whose_code_changes_the_context_is_not_played_when_it_is_saved(project: Path) -> None:
    (project / "blueprints/it.yaml").write_text(
        to_yaml(
            {
                "version": "1",
                "name": "it",
                "context_schema": {"properties": {"note": {"type": "string", "default": ""}}},
                "steps": [{"name": "note", "call": "skills.flaky:note"}],
            }
        ),
        "utf-8",
    )
    workspace, clock = Workspace(find_project(project)), TestClock(auto_advance=True)
    store = clock.memory_store()
    async with workspace:
        pipeline = workspace.load("blueprints/it.yaml").handed_out()
        async with Flujo[Any, Any, Any](pipeline, store=store, clock=clock, recovery=False) as runner:
            result = await runner.run_result_async({})
        saved = await saved_async(workspace, store, RunId(result.run_id))
    assert saved.untried == ("skills.flaky:note",)


# Servers and caches --------------------------------------------------------------------------------------


def shopper(request: dict[str, Any]) -> Response:
    """Call two tools of a server, and answer with the result of the last one."""
    messages = request["messages"]
    if messages[-1]["role"] == "tool":
        return Response(text=f"so {messages[-1]['content']}")
    return Response(tool_call=("lookup", {"name": "Ada"}), more_calls=(("stock", {"item": "lamp"}),))


@pytest.mark.parametrize("kind", ["step", "granular"])
@pytest.mark.parametrize("allow", [{}, {"allow": ["lookup", "stock"]}], ids=["all", "some"])
async def test_tools_of_servers_are_answered_without_the_server(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, allow: dict[str, Any]
) -> None:
    ledger = project / "ledger.txt"
    ledger.touch()
    (project / "flujo.toml").write_text(f"{shop_toml(LEDGER=ledger)}timeout = 60\n", "utf-8")
    agent = {"model": "openai-chat:gpt-5-mini", "tools": [{"mcp": "shop", "effect": "read", **allow}]}
    steps = [{"kind": kind, "name": "serve", "agent": "clerk", "input": "Who is Ada?"}]
    with provider_server() as server:
        server.will_answer(shopper)
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        ran = await run_save_play(project, {"agents": {"clerk": agent}, "steps": steps}, {})
    assert str(ran.output).startswith("so ")
    assert ran.played == ran.output
    assert sorted(each.name for each in ran.cassette.calls) == ["lookup", "stock"]
    assert {"lookup", "stock"} <= ran.cassette.servers["shop"].keys()
    path = project / "it.yaml"
    path.write_text(path.read_text("utf-8").replace("servers:\n  shop:", "servers:\n  desk:"), "utf-8")
    with pytest.raises(CassetteMismatch, match="has tools of MCP server 'shop', and the cassette does not"):
        await play_async(path)


async def test_an_answer_from_the_cache_is_played_as_the_answer_of_the_model(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = {
        "model": "openai-chat:gpt-5-mini",
        "instructions": "Sort tickets.",
        "output_schema": {"type": "object", "required": ["label"]},
    }
    sort = {"name": "sort", "agent": "sorter", "input": "{{ item }}", "cache": {}}
    number = {"kind": "cache", "name": "kept", "step": {"name": "number", "call": "skills.flaky:size"}}
    each = {"kind": "map", "name": "each", "over": "input", "max_concurrency": 1, "steps": [sort, number]}
    with provider_server() as server:
        server.will_answer('{"label": "bug"}', '{"label": "praise"}', Response(status=500))
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        blueprint = {
            "agents": {"sorter": agent},
            "steps": [each],
            "output": ["{{ steps.each.output }}"],
        }
        ran = await run_save_play(project, blueprint, ["crash", "thanks", "crash"])
        assert len(server.requests) == 2
    assert ran.played == ran.output
    assert sorted(said.at for said in ran.cassette.conversations) == [
        "each[0]/sort",
        "each[1]/sort",
        "each[2]/sort",
    ]
    assert [each.at for each in ran.cassette.calls] == [f"each[{number}]/kept/number" for number in range(3)]
    path = project / "blueprints/it.yaml"
    path.write_text(path.read_text("utf-8").replace("Sort tickets.", "Sort letters."), "utf-8")
    with pytest.raises(CassetteFailed, match="no longer matches the request of agent 'sorter'"):
        (await play_async(project / "it.yaml")).require_matches()


# Random programs -----------------------------------------------------------------------------------------


def program(chance: Random, depth: int = 2, above: str = "s") -> list[dict[str, Any]]:
    """Return steps that fail often, in parts that do not need their outputs."""
    return [_part(chance, depth, f"{above}{number}") for number in range(chance.randint(1, 3))]


def _part(chance: Random, depth: int, name: str) -> dict[str, Any]:
    kinds = ["call", "fallback"] + (["map", "skip", "parallel", "tries"] if depth else [])
    kind = chance.choice(kinds)
    config = {"config": {"max_retries": chance.randint(0, 2)}}
    number = chance.randint(1, 15)
    spare = {"call": "skills.flaky:count", "with": {"data": {"at": name}}}
    leaf = call(name, number, fallback=spare)
    match kind:
        case "call":
            return {**leaf, **config}
        case "fallback":
            return leaf
        case "map" | "skip":
            inner = [call(f"{name}w", "{{ item }}", **config), *program(chance, depth - 1, f"{name}_")]
            return {
                "kind": "map",
                "name": name,
                "over": str([chance.randint(1, 15) for _ in range(4)]),
                "max_concurrency": chance.randint(1, 4),
                "on_error": "collect" if kind == "map" else "skip",
                "steps": inner,
            }
        case "parallel":
            return {
                "kind": "parallel",
                "name": name,
                "branches": {each: program(chance, depth - 1, f"{name}{each}") for each in ("a", "b")},
            }
        case _:
            return {
                "kind": "loop",
                "name": name,
                "until": "true",
                "max_iterations": 2,
                "steps": program(chance, depth - 1, f"{name}_"),
            }


@tries(60)
@given(seed=st.integers(0, 10**6))
def test_random_programs_with_failures_give_the_same_output_when_they_are_played(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        root = made(tmp_path_factory.mktemp("random") / "desk", patch)
        steps = program(Random(seed))
        output = {step["name"]: f"{{{{ steps.{step['name']}.output }}}}" for step in steps}
        ran = asyncio.run(run_save_play(root, {"steps": steps, "output": output}, {}))
        assert ran.played == ran.output
    forget()
