"""Secrets and personal values come in at every door of many runs, and none of them is found anywhere afterwards."""

from __future__ import annotations

import asyncio
import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
import zstandard
from typer.testing import CliRunner

from agents.provider_server import Provider, Response, provider_server
from flujo.cli.app import app
from flujo.services.admin.scaffold import scaffold
from flujo.services.project.project import find_project
from flujo.state.sql.tables import blobs, metadata
from flujo.state.store import SqlStateStore
from local_mcp import shop_toml
from telemetry.collector import Collector, collecting
from telemetry.conftest import end_telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KEYS = tuple(f"sk/canary+{number}=uv\\wxyz0123456789" for number in range(4))
FORMS = (
    str,
    lambda key: quote(key, ""),
    lambda key: b64encode(key.encode()).decode().rstrip("="),
    lambda key: key.encode().hex(),
    lambda key: repr(key)[1:-1],
)
SECRETS = tuple(form(key) for key in KEYS for form in FORMS)
MAILS = tuple(f"ana.canary{number}@canary-mail.org" for number in range(10))
PHONES = tuple(f"+44 20 7946 09{number}" for number in range(50, 55))
NUMBERS = (
    "4111 1111 1111 1111",
    "5555 5555 5555 4444",
    "3782 822463 10005",
    "DE89 3704 0044 0532 0130 00",
    "GB82 WEST 1234 5698 7654 32",
)
PERSONAL = (*MAILS, *PHONES, *NUMBERS)

SCRUBBED = '\n[governance]\npii_scrub = true\njournal = "scrubbed"\n'
LETTER = """\
version: "1"
name: letter
input_schema: {type: object}
context_schema: {type: object, properties: {note: {type: string, default: ""}}}
steps:
  - name: say
    call: skills.canary:say
    with: {mode: "{{ input.mode }}", text: "{{ input.text }}"}
    save: {note: output}
  - name: later
    call: skills.canary:say
    with: {mode: fine, text: "{{ input.text }} {{ context.note }}"}
    config: {execution_mode: background}
  - kind: hitl
    name: ask
    message: "Is {{ input.text }} right? {{ context.note }}"
  - name: end
    call: skills.canary:say
    with: {mode: "{{ input.end }}", text: "{{ steps.ask.output }}"}
"""
TALK = """\
version: "1"
name: talk
input_schema: {type: string}
agents:
  clerk:
    model: openai-chat:gpt-4o-mini
    tools:
      - {mcp: shop, allow: [lookup], effect: read}
      - "skills.canary:lookup_here"
steps:
  - {kind: granular, name: serve, agent: clerk, input: "{{ input }}", max_turns: 4}
  - {name: plain, agent: clerk, input: "{{ steps.serve.output }}"}
"""
SKILLS = '''\
"""Gives the planted values away in every way that code can."""

import json
import logging
import os
from pathlib import Path

log = logging.getLogger("skills.canary")


def planted() -> dict[str, list[str]]:
    return json.loads(Path(os.environ["PLANTED"]).read_text("utf-8"))


def say(mode: str, text: str) -> str:
    log.warning("%s says %s", mode, text)
    if mode == "logs":
        for value in planted()["secrets"] + planted()["personal"]:
            log.error("logged %s", value)
    if mode == "returns":
        return planted()["keys"][0]
    if mode == "raises":
        raise ConnectionError(f"401 for {planted()['secrets']} of {planted()['personal']}")
    return text + " and " + planted()["personal"][-1]


def lookup_here(name: str) -> dict[str, object]:
    """Look a customer up."""
    return {"found": planted()["personal"], "name": name}
'''


pytestmark = pytest.mark.usefixtures("same_logging")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the planted values, beside the project, and the keys in the environment."""
    folder = tmp_path / "outside"
    folder.mkdir()
    planted = {"keys": KEYS, "secrets": SECRETS, "personal": PERSONAL}
    (folder / "planted.json").write_text(json.dumps(planted), "utf-8")
    (folder / "letter.json").write_text(
        json.dumps({"mode": "logs", "end": "fine", "text": PERSONAL[2]}), "utf-8"
    )
    (folder / "ledger.txt").touch()
    monkeypatch.setenv("FLUJO_LOG", "info")
    monkeypatch.setenv("PLANTED", str(folder / "planted.json"))
    for number, key in enumerate(KEYS):
        monkeypatch.setenv(f"CANARY{number}_API_KEY", key)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a callable, an agent with tools, an MCP server and a background task."""
    folder = tmp_path / "demo"
    scaffold(folder, "demo")
    settings = folder / "flujo.toml"
    server = shop_toml(LEDGER=outside / "ledger.txt", TOKEN="${CANARY3_API_KEY}")
    settings.write_text(f"{settings.read_text('utf-8')}\n{server}timeout = 60\n{SCRUBBED}", "utf-8")
    (folder / "skills/canary.py").write_text(SKILLS, "utf-8")
    for name, text in (("letter", LETTER), ("talk", TALK)):
        (folder / f"blueprints/{name}.yaml").write_text(text, "utf-8")
    monkeypatch.chdir(folder)
    return folder


class Commands:
    """Calls the command line, and keeps all that it has shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.codes: dict[int, int] = {}

    def __call__(self, *words: str) -> int:
        result = CliRunner().invoke(app, list(words), prog_name="flujo")
        self.shown.append(f"$ flujo {words[0]}\n{result.output}")
        if words[0] == "run":
            self.codes[result.exit_code] = self.codes.get(result.exit_code, 0) + 1
        return result.exit_code


def letters(flujo: Commands, outside: Path, *, people: int) -> None:
    """Make runs that fail, pause and succeed, with values in inputs, files, metadata, the context and answers."""
    for number in range(people):
        text, run = PERSONAL[number], f"letter-{number}"
        for mode, end in (("fine", "fine"), ("logs", "fine"), ("fine", "raises")):
            name = f"{run}-{mode}-{end}"
            flujo(
                *("run", "letter", "--run-id", name, "--metadata", f"customer={PERSONAL[number + 6]}"),
                *("-f", f"mode={mode}", "-f", f"end={end}", "-f", f"text=I am {text}"),
            )
            if number % 2:
                flujo("tasks", "resume", name, "--input", f"yes, {PERSONAL[number + 10]}")
    for mode in ("returns", "raises"):
        flujo("run", "letter", "-f", f"mode={mode}", "-f", "end=fine", "-f", "text=x", "--run-id", mode)
    flujo("run", "letter", "--input-file", str(outside / "letter.json"), "--run-id", "of-a-file")
    flujo("tasks", "resume", "of-a-file", "--input", KEYS[1])
    flujo(
        "run", "letter", "-f", f"text={KEYS[2]}", "-f", "mode=fine", "-f", "end=fine", "--run-id", "refused"
    )
    flujo("run", "letter", "-f", "text=x", "-f", "mode=fine", "-f", "end=fine", "--metadata", f"k={KEYS[3]}")


def talks(flujo: Commands, provider: Provider) -> None:
    """Make runs whose model calls tools of the project and of a server, and answers with the values."""

    def answer(request: dict[str, Any]) -> Response:
        turn = sum(each["role"] == "tool" for each in request["messages"])
        if turn == 0:
            return Response(tool_call=("lookup", {"name": PERSONAL[3]}))
        if turn == 1:
            return Response(tool_call=("lookup_here", {"name": PERSONAL[11]}))
        return Response(f"Dear {PERSONAL[4]}, call {PERSONAL[12]}")

    provider.will_answer(answer)
    for number in range(5):
        flujo("run", "talk", "--input", f"I am {PERSONAL[number]}", "--run-id", f"talk-{number}")
    provider.answers[:] = [Response(f"the key is {KEYS[0]}")]
    flujo("run", "talk", "--input", "tell me", "--run-id", "tells-the-key")
    provider.answers[:] = [Response(tool_call=("lookup", {"name": KEYS[1]})), Response("done")]
    flujo("run", "talk", "--input", "look me up", "--run-id", "asks-with-a-key")
    provider.answers[:] = [Response(status=400, error={"message": f"bad key {KEYS[0]} of {PERSONAL[0]}"})]
    flujo("run", "talk", "--input", "tell me", "--run-id", "refused-by-the-provider")


def look(flujo: Commands) -> None:
    """Show and write everything that commands can say of the runs."""
    for run in ("letter-1-logs-fine", "letter-1-fine-raises", "raises", "talk-0", "asks-with-a-key"):
        flujo("trace", run, "--full")
        flujo("trace", run, "--json")
        flujo("trace", run, "--format", "html", "--output", f"{run}.html")
        flujo("trace", run, "--format", "otlp", "--output", f"{run}.otlp.json")
        flujo("logs", run)
        flujo("tasks", "show", run, "--json")
        flujo("export", run)
        flujo("cassette", "save", run)
    flujo("trace", "talk-0", "--messages")
    flujo("tasks", "list", "--json")
    flujo("lock")
    flujo("doctor")


def below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of every file below a folder, and those of compressed ones as they are read."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield path.name, data
            if data.startswith(b"\x28\xb5\x2f\xfd"):
                yield (
                    f"{path.name} unpacked",
                    zstandard.ZstdDecompressor()
                    .stream_reader(io.BytesIO(data), read_across_frames=True)
                    .read(),
                )


async def stored(uri: str) -> list[tuple[str, bytes]]:
    """Return every row of the database and every content, decompressed."""
    store = SqlStateStore(uri)
    found = []
    for table in metadata.sorted_tables:
        rows = await store.read(lambda c, table=table: c.execute(sa.select(table)).all())
        found += [(f"table {table.name}", repr(tuple(row)).encode()) for row in rows]
    digests = await store.read(lambda c: c.scalars(sa.select(blobs.c.digest)).all())
    found += [(f"content {name}", data) for name, data in (await store.blobs(list(digests))).items()]
    await store.aclose()
    return found


def searched(
    root: Path, flujo: Commands, provider: Provider, collector: Collector | None = None
) -> dict[str, bytes]:
    """Return all places by name."""
    found: dict[str, bytes] = {
        "spans and metrics": b"" if collector is None else b"\n".join(collector.bodies),
        "what commands have shown": "\n".join(flujo.shown).encode(),
        "requests to models": json.dumps(provider.requests, ensure_ascii=False).encode(),
    }
    for name, data in (*below(root), *asyncio.run(stored(f"sqlite:///{root / '.flujo/state.db'}"))):
        found[name] = found.get(name, b"") + data
    return found


def leaks(places: dict[str, bytes], values: Sequence[str]) -> set[str]:
    """Return the places that have one of the values."""
    return {name for name, data in places.items() if any(value.encode() in data for value in values)}


@pytest.mark.timeout(120)
def test_no_planted_value_is_found_anywhere(
    root: Path, outside: Path, provider: Provider, collector: Collector
) -> None:
    assert len(set(SECRETS + PERSONAL)) == 40
    with (root / "flujo.toml").open("a", encoding="utf-8") as settings:
        settings.write(f'\n[telemetry]\nendpoint = "{collector.url}"\ncontent = true\n')
    flujo = Commands()
    letters(flujo, outside, people=6)
    talks(flujo, provider)
    flujo("worker", "--once")
    look(flujo)
    assert sum(flujo.codes.values()) >= 30
    assert {0, 1, 5} <= flujo.codes.keys(), "runs that succeed, fail and pause"
    end_telemetry(find_project(root).settings)
    places = searched(root, flujo, provider, collector)
    assert {"flujo.lock", "talk-0.html", "talk-0.otlp.json", "state.db", "table journal"} <= places.keys()
    assert {"talk-0.jsonl.zst unpacked", "talk-talk-0.yaml"} <= places.keys()
    assert b"'task'" in places["table runs"]
    assert b"<EMAIL>" in places["table journal"]
    assert b"<EMAIL>" in places["requests to models"]
    assert b"<EMAIL>" in places["spans and metrics"]
    assert {"ask", "serve"} <= {word for span in collector.spans for word in span.name.split()}
    assert b"401 for ['***'" in places["what commands have shown"]
    assert b"logged ***" in places["what commands have shown"]
    assert (leaks(places, SECRETS), leaks(places, PERSONAL)) == (set(), set())


@pytest.mark.timeout(120)
def test_the_search_finds_personal_values_where_the_database_keeps_them_and_only_there(
    root: Path, outside: Path, provider: Provider
) -> None:
    settings = root / "flujo.toml"
    settings.write_text(settings.read_text("utf-8").replace('journal = "scrubbed"', ""), "utf-8")
    flujo = Commands()
    letters(flujo, outside, people=1)
    flujo("trace", "raises", "--full")
    flujo("export", "of-a-file")
    places = searched(root, flujo, provider)
    assert leaks(places, SECRETS) == set()
    found = leaks(places, PERSONAL)
    assert {"table journal", "table runs", "state.db"} <= found
    assert {name for name in found if not name.startswith(("table ", "content ", "state.db"))} == set()
