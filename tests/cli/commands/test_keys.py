"""`flujo keys`: makes keys, counts values by key, and rotates keys."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from flujo.governance.key_ring import new_key

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

OLD, NEW = new_key("old").text, new_key("new").text
MARKER = b"MARKER-9"


@pytest.fixture(autouse=True)
def encrypted(project: Project) -> None:
    """Encrypt the database of the project."""
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write('\n[state]\nencryption = "FLUJO_STATE_KEYS"\n')


def test_a_new_key_is_printed_and_not_stored(flujo: Flujo, project: Project) -> None:
    before = sorted(project.root.rglob("*"))
    first, second = flujo("keys", "new"), flujo("keys", "new", "--id", "k2")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d:[A-Za-z0-9+/]{43}=\n", first.stdout)
    assert second.stdout.startswith("k2:")
    assert "put it in front of the keys in FLUJO_STATE_KEYS" in first.stderr
    assert sorted(project.root.rglob("*")) == before
    refused = flujo("keys", "new", "--id", "plain")
    assert (refused.exit_code, "[FLJ620]" in refused.stderr) == (2, True)


def test_keys_are_rotated_counted_and_needed(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(keys: str) -> None:
        monkeypatch.setenv("FLUJO_STATE_KEYS", keys)

    def counts() -> dict[str, int]:
        found = json.loads(flujo("keys", "list", "--json").stdout)
        return {**found["by_key"], "plain": found["plain"], "unknown": found["unknown"]}

    use(OLD)
    assert flujo("run", "hello", "-i", MARKER.decode()).exit_code == 0
    files = list((project.root / ".flujo").iterdir())
    assert files
    assert not [file.name for file in files if MARKER in file.read_bytes()]
    written = counts()["old"]
    use(NEW)
    refused = flujo("tasks", "list")
    assert refused.exit_code == 8
    assert "is encrypted with the key 'old', which is not in FLUJO_STATE_KEYS: it has `new`" in refused.stderr
    use(f"{NEW},{OLD}")
    would = flujo("keys", "rotate", "--dry-run")
    assert would.stderr == f"{written} values would be encrypted with new; nothing was changed\n"
    assert counts() == {"new": 0, "old": written, "plain": 0, "unknown": 0}
    done = flujo("keys", "rotate", "--json", "--by", "ada")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["values"], report["left"], report["is_overwritten"]) == (
        0,
        written,
        0,
        True,
    )
    use(NEW)
    assert counts() == {"new": written + 2, "plain": 0, "unknown": 0}, "with the act of the rotation"
    assert "values are encrypted with new; FLUJO_STATE_KEYS reads those of `new`" in flujo("doctor").stdout
    shown = flujo("keys", "list")
    assert NEW.partition(":")[2] not in shown.output
    use(f"plain,{NEW}")
    assert "decrypted" in flujo("keys", "rotate").stderr
    assert MARKER.decode() in flujo("tasks", "show", "@last").output


def test_without_the_variable_a_command_says_who_needs_it(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLUJO_STATE_KEYS", raising=False)
    result = flujo("run", "hello", "-i", "Ada")
    assert result.exit_code == 2
    assert re.search(r"FLUJO_STATE_KEYS is not set, and flujo\.toml:\d+ names it for the keys", result.stderr)
    assert not (project.root / ".flujo" / "state.db").exists()
    doctor = flujo("doctor")
    assert "fail  encryption" in doctor.stdout


def test_a_key_in_the_file_is_refused_and_not_shown(flujo: Flujo, project: Project) -> None:
    file = project.root / "flujo.toml"
    file.write_text(file.read_text("utf-8").replace("FLUJO_STATE_KEYS", OLD), "utf-8")
    result = flujo("run", "hello", "-i", "Ada")
    assert result.exit_code == 2
    assert "`encryption` is the name of an environment variable" in result.stderr
    assert OLD.partition(":")[2] not in result.output
