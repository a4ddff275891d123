"""Editor support: the YAML language server of the usual editors, with the schema that ships with Flujo."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flujo
from missing import NO_NPM

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = Path(__file__).with_name("package.json")
SCHEMA = Path(flujo.__file__).parent / "blueprint/blueprint.schema.json"


@pytest.fixture(scope="module")
def server() -> Path:
    """The executable of the server, installed once per machine; without npm the test is skipped with a reason."""
    if shutil.which("npm") is None:
        pytest.skip(NO_NPM)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flujo-tests"
    folder = cache / hashlib.sha256(WANTED.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "node_modules/yaml-language-server/bin/yaml-language-server"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.copy(WANTED, folder)
            quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--silent"]
            subprocess.run(["npm", "install", *quiet], cwd=folder, check=True, stdin=subprocess.DEVNULL)
            (folder / "installed").touch()
    return program


class Editor:
    """A headless editor that opens a text in the language server."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["node", program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._last = 0
        self._files = ((folder / f"case{number}.yaml").as_uri() for number in count())
        self._uri = ""
        self._ask("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        self._tell("initialized", {})
        settings = {"yaml": {"schemaStore": {"enable": False}, "validate": True, "completion": True}}
        self._tell("workspace/didChangeConfiguration", {"settings": settings})

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def opened(self, text: str) -> list[dict[str, Any]]:
        """Open a text in a new file and return its diagnostics."""
        self._uri = next(self._files)
        document = {"uri": self._uri, "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})
        while True:
            message = self._next_message()
            is_about = message.get("method") == "textDocument/publishDiagnostics"
            if is_about and message["params"]["uri"] == self._uri:
                marks: list[dict[str, Any]] = message["params"]["diagnostics"]
                return marks

    def offered(self, line: int, character: int) -> set[str]:
        """Return the completions at a position of the open text."""
        place = {"line": line, "character": character}
        found = self._ask("textDocument/completion", {"textDocument": {"uri": self._uri}, "position": place})
        return {one["label"] for one in (found["items"] if isinstance(found, dict) else found)}

    def _ask(self, method: str, params: Any) -> Any:
        self._last += 1
        self._send({"id": self._last, "method": method, "params": params})
        while True:
            message = self._next_message()
            if message.get("id") == self._last and "method" not in message:
                return message["result"]

    def _tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        self._process.stdin.flush()

    def _next_message(self) -> dict[str, Any]:
        """Return the next message; requests of the server get an empty response."""
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server has ended"
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        if "method" in message and "id" in message:
            items = message.get("params", {}).get("items")
            self._send({"id": message["id"], "result": [None] * len(items) if items else None})
        return message


@pytest.fixture(scope="module")
def editor(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """One editor, in which each test opens files of its own."""
    made = Editor(server, tmp_path_factory.mktemp("files"))
    yield made
    made.close()


TOP = f'# yaml-language-server: $schema={SCHEMA}\nversion: "1"\nname: case\nsteps:\n'


def marked(text: str, marks: list[dict[str, Any]]) -> list[str]:
    """Return the pieces of a text that are marked."""
    lines = text.split("\n")
    spans = [(one["range"]["start"], one["range"]["end"]) for one in marks]
    return [lines[start["line"]][start["character"] : end["character"]] for start, end in spans]


GOOD = TOP + "  - name: a\n    call: skills.demo:ok\n  - kind: hitl\n    name: b\n    message: Send it?\n"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (GOOD, []),
        (GOOD.replace("call:", "cal:"), ["cal"]),
        (GOOD.replace("message:", "mesage:"), ["mesage"]),
        (GOOD + "descripton: x\n", ["descripton"]),
        (GOOD.replace("Send it?", "[]"), ["[]"]),
    ],
)
def test_an_editor_marks_errors_at_their_place(text: str, pieces: list[str], editor: Editor) -> None:
    found = marked(text, editor.opened(text))
    assert [piece for piece in pieces if piece not in found] == []
    assert bool(found) is bool(pieces)


def test_an_editor_offers_the_keys_of_the_kind_of_step(editor: Editor) -> None:
    editor.opened(GOOD + "  - kind: loop\n    name: c\n    \n")
    offered = editor.offered(11, 4)
    assert {"until", "steps", "max_iterations", "carry"} <= offered
    assert not {"message", "call", "blueprint"} & offered
