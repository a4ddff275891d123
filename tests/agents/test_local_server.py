"""The real model behind a real llama.cpp server; its weights are fetched once into the user's own cache."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warm
from flujo.agents import local_server, local_weights
from flujo.agents.chat import build_agent
from flujo.agents.settings import AgentSettings
from flujo.domain.agents import AgentSpec, Ask
from flujo.engine.attempt_costs import spent
from flujo.exceptions import ModelUnavailable, OutputTruncated, ProviderUnavailable
from flujo.settings import default_cache_dir
from support import listener

pytestmark = pytest.mark.model

LABEL = {
    "type": "object",
    "properties": {"label": {"enum": ["refund", "bug", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def weights() -> Path:
    """The real weights. Without them these tests fail, because they would prove nothing."""
    return local_weights.ensure("smollm2", cache_dir=default_cache_dir())


@pytest.fixture(scope="module")
def shared(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentSettings]:
    """Settings with a cache folder for these tests only, so that no other process uses their server."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "models").symlink_to(weights.parent)
    yield AgentSettings(environment={}, cache_dir=cache, local_idle_s=20)
    stop_servers(cache)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    stop_servers(tmp_path)


def running(cache: Path) -> list[int]:
    return [json.loads(state.read_text())["pid"] for state in cache.glob("servers/*.json")]


def stop_servers(cache: Path) -> None:
    for pid in running(cache):
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return (
        bool(state.strip()) and "Z" not in state
    )  # in a container without an init process, dead processes stay as zombies


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "the condition did not hold within 30 seconds"
        time.sleep(0.02)


async def test_the_model_answers_with_json_that_fits_and_costs_nothing(shared: AgentSettings) -> None:
    agent = build_agent(AgentSpec(name="sorter", model="local:smollm2", output_schema=LABEL), settings=shared)
    reply = await agent.ask(Ask(data="The app crashes when I log in.", instructions="Sort support tickets."))
    assert reply.output["label"] in ("refund", "bug", "other")
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert reply.usage.cost_usd == 0
    assert reply.model == "SmolLM2-135M-Instruct.Q4_1"


async def test_the_model_streams_text(shared: AgentSettings) -> None:
    spec = AgentSpec(name="writer", model="local:smollm2", model_settings={"max_tokens": 12})
    pieces: list[str] = []
    with pytest.raises(OutputTruncated, match="cut off at the limit of 12 tokens") as caught:
        await build_agent(spec, settings=shared).ask(
            Ask(data="Tell me of the sea.", on_text=listener(pieces))
        )
    assert len(pieces) > 1
    assert spent(caught.value).output_tokens <= 12 * spent(caught.value).requests


async def test_a_prompt_longer_than_the_context_is_a_clear_error(shared: AgentSettings) -> None:
    agent = build_agent(AgentSpec(name="reader", model="local:smollm2"), settings=shared)
    with pytest.raises(ModelUnavailable, match="too small a context window for this prompt") as caught:
        await agent.ask(Ask(data="word " * 6000))
    assert "shorten" in str(caught.value.hint)
    assert caught.value.facts["retryable"] is False


async def test_concurrent_requests_share_one_server(shared: AgentSettings) -> None:
    spec = AgentSpec(name="writer", model="local:smollm2", output_schema={"enum": ["yes", "no"]})
    agents = [build_agent(spec, settings=shared) for _ in range(2)]
    replies = await asyncio.gather(*(agent.ask(Ask(data=f"Say {n}.")) for n in range(2) for agent in agents))
    assert all(reply.output for reply in replies)
    assert len(list(shared.cache_dir.glob("servers/*.json"))) == 1


def test_the_server_listens_on_a_socket_that_only_this_user_can_reach(
    weights: Path, shared: AgentSettings
) -> None:
    found = local_server.address(weights, cache_dir=shared.cache_dir, idle_s=20)
    assert found.socket.is_socket()
    assert found.socket.parent.stat().st_mode & 0o777 == 0o700
    state = next(shared.cache_dir.glob("servers/*.json"))
    assert state.stat().st_mode & 0o077 == 0
    command = ["ss", "-ltnpH"] if shutil.which("ss") else ["cat", f"/proc/{found.pid}/net/tcp"]
    listening = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"pid={found.pid}," not in listening


@contextlib.contextmanager
def squatting(path: Path) -> Iterator[list[bytes]]:
    """Listen on a socket, answer every request with success, and record what arrives."""
    received: list[bytes] = []

    class Squatter(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            received.append(self.connection.recv(65536))
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
            )

    path.unlink(missing_ok=True)
    with socketserver.ThreadingUnixStreamServer(str(path), Squatter) as fake:
        thread = threading.Thread(target=fake.serve_forever)
        thread.start()
        yield received
        fake.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["open", "link", "foreign"])
async def test_a_socket_that_another_user_can_have_made_gets_no_prompt(
    weights: Path, cache: Path, way: str
) -> None:
    (cache / "models").symlink_to(weights.parent)
    settings = AgentSettings(environment={}, cache_dir=cache, local_idle_s=20)
    spec = AgentSpec(name="writer", model="local:smollm2", output_schema={"enum": ["yes", "no"]})
    agent = build_agent(spec, settings=settings)
    assert (await agent.ask(Ask(data="Say one."))).output
    first = local_server.address(weights, cache_dir=cache, idle_s=20)
    kill(first.pid)
    folder = first.socket.parent
    if way == "open":
        folder.chmod(0o755)
    elif way == "link":
        folder.rename(f"{folder}-moved")
        folder.symlink_to(f"{folder}-moved")
    elif os.geteuid() == 0:
        os.chown(folder, 54321, -1)
    else:
        pytest.skip("only root can give a folder to another user")
    with squatting(first.socket) as received:
        assert (await agent.ask(Ask(data="Say two."))).output
    assert received == []


async def test_a_proxy_of_the_environment_gets_no_prompt(
    shared: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        spec = AgentSpec(name="writer", model="local:smollm2", output_schema={"enum": ["yes", "no"]})
        assert (await build_agent(spec, settings=shared).ask(Ask(data="Say one."))).output
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_folder_of_state_files_that_others_can_write_to_is_refused(weights: Path, cache: Path) -> None:
    (cache / "servers").mkdir()
    (cache / "servers").chmod(0o777)
    with pytest.raises(ModelUnavailable, match="other users can write to") as caught:
        local_server.address(weights, cache_dir=cache, idle_s=1)
    assert f"chmod 700 {cache / 'servers'}" in str(caught.value.hint)


def test_two_processes_share_a_server(weights: Path, cache: Path) -> None:
    asking = (
        "import sys; from pathlib import Path; from flujo.agents import local_server\n"
        "print(local_server.address(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), idle_s=20).pid)"
    )
    command = [sys.executable, "-c", asking, str(weights), str(cache)]
    processes = [warm.Popen(command, stdout=subprocess.PIPE) for _ in "ab"]
    pids = {process.communicate()[0].strip() for process in processes}
    assert len(pids) == 1
    assert is_alive(int(pids.pop()))


def test_a_killed_server_is_replaced(weights: Path, cache: Path) -> None:
    first = local_server.address(weights, cache_dir=cache, idle_s=20)
    assert local_server.address(weights, cache_dir=cache, idle_s=20) == first
    kill(first.pid)
    second = local_server.address(weights, cache_dir=cache, idle_s=20)
    assert second.pid != first.pid
    assert local_server._is_healthy(second)


async def test_a_server_stays_while_busy_and_exits_when_idle(weights: Path, cache: Path) -> None:
    (cache / "models").symlink_to(weights.parent)
    settings = AgentSettings(environment={}, cache_dir=cache, local_idle_s=3)
    spec = AgentSpec(name="writer", model="local:smollm2", model_settings={"max_tokens": 70})
    try:
        used = (
            await build_agent(spec, settings=settings).ask(Ask(data="Write a long story about a ship."))
        ).usage
    except OutputTruncated as error:
        used = spent(error)
    assert used.output_tokens > 70  # more work than fits into 3 seconds
    pids = running(cache)
    until(lambda: not running(cache) and not any(map(is_alive, pids)))


def test_a_process_killed_while_a_server_starts_leaves_no_lock(weights: Path, cache: Path) -> None:
    asking = (
        "import sys; from pathlib import Path; from flujo.agents import local_server\n"
        "print('asking', flush=True)\n"
        "local_server.address(Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), idle_s=0.5)"
    )
    command = [sys.executable, "-c", asking, str(weights), str(cache)]
    with warm.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.kill()
    assert local_server._is_healthy(local_server.address(weights, cache_dir=cache, idle_s=20))


def test_a_server_that_cannot_load_its_model_reports_the_reason(cache: Path) -> None:
    broken = cache / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(2000))
    with pytest.raises(ModelUnavailable, match="did not start") as caught:
        local_server.address(broken, cache_dir=cache, idle_s=1)
    assert "gguf" in str(caught.value).lower()
    assert str(next(cache.glob("servers/*.log"))) in str(caught.value.hint)
    assert not list(cache.glob("servers/*.json"))


def test_without_the_runtime_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find(name))
    with pytest.raises(ProviderUnavailable) as caught:
        build_agent(
            AgentSpec(name="a", model="local:smollm2"),
            settings=AgentSettings(environment={}, cache_dir=tmp_path),
        )
    assert caught.value.hint == "pip install 'flujo[local]'"
