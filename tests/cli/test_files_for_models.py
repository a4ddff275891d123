"""Files of steps on the command line: the bytes survive `kill -9`, a trace shows no bytes, a purge deletes them."""

from __future__ import annotations

import json
import sqlite3
import time
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from agents.provider_server import Fault, Provider, provider_server
from agents.provider_server import Response as Sent
from domain.test_files import png
from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

SEE = """\
version: "1"
name: see
input_schema: {type: object, required: [scan], properties: {scan: {type: string}}}
agents:
  eye: {model: openai-chat:gpt-4o, model_settings: {max_tokens: 50}, tools: [skills.work:note]}
steps:
  - {kind: KIND, name: look, agent: eye, input: What is it?, files: ["{{ input.scan }}"]}
"""
SCAN = ("--field", "scan=scan.png")


@pytest.fixture(params=["step", "granular"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(project: Project, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    project.blueprint("see", SEE.replace("KIND", kind))
    (project.root / "scan.png").write_bytes(png())
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def images(provider: Provider) -> set[str]:
    parts = [part for request in provider.requests for part in request["messages"][0]["content"]]
    return {part["image_url"]["url"] for part in parts if part["type"] == "image_url"}


@pytest.mark.parametrize("turn", [0, 1])
def test_after_a_kill_the_same_bytes_are_sent_although_the_file_is_gone(
    provider: Provider, project: Project, turn: int
) -> None:
    call = Sent(tool_call=("note", {"text": "seen"}))
    provider.will_answer(*[call] * turn, Fault.STALL)
    process = project.start("run", "see", *SCAN)
    while len(provider.requests) <= turn:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (project.root / "scan.png").unlink()
    provider.answers[:] = ["A dot."]
    resumed = project.start("resume", "@last")
    out, errors = resumed.communicate(timeout=120)
    assert (resumed.returncode, out) == (0, "A dot.\n"), errors
    assert images(provider) == {f"data:image/png;base64,{b64encode(png()).decode()}"}


def test_a_trace_shows_the_file_without_its_bytes(
    provider: Provider, project: Project, flujo: Flujo, kind: str
) -> None:
    provider.will_answer("A dot.")
    process = project.start("run", "see", *SCAN)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    shown = f"scan.png (image/png, {len(png())} B, sha256:{canonical.digest(png())[:12]}…)"
    told = flujo("trace", "@last").stdout
    assert f"file    {shown}" in told
    whole = flujo("trace", "@last", "--json").stdout
    assert canonical.digest(png()) in whole
    if kind == "granular":
        said = flujo("trace", "@last", "look", "--messages").stdout
        assert f"user    What is it?\nfile    {shown}\n" in said
        told += said
    assert b64encode(png()).decode()[:40] not in told + whole


def test_a_purge_deletes_the_bytes(provider: Provider, project: Project, flujo: Flujo) -> None:
    provider.will_answer("A dot.")
    process = project.start("run", "see", *SCAN)
    process.communicate(timeout=120)

    def kept() -> int:
        database = sqlite3.connect(next(project.root.rglob("*.db")))
        query = "SELECT count(*) FROM blobs WHERE digest = ?"
        count: int = database.execute(query, [canonical.digest(png())]).fetchone()[0]
        database.close()
        return count

    assert kept() == 1
    assert json.loads(flujo("purge", "--older-than", "0s", "--yes", "--json").stdout)["runs"] == 1
    assert kept() == 0


def test_a_missing_file_says_what_to_do(provider: Provider, project: Project, kind: str) -> None:
    process = project.start("run", "see", "--field", "scan=scans/none.png")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "file 'scans/none.png' is not sent: the file does not exist [FLJ436]" in errors
    assert "check the spelling and the folder" in errors
    assert not provider.requests
