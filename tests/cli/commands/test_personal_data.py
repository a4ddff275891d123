"""Personal data is masked in what commands print and write, and not in the database."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from agents.provider_server import Provider, Response, provider_server
from flujo.cli.exit_codes import ExitCode
from flujo.governance.key_ring import new_key
from flujo.governance.personal_data import models
from flujo.governance.personal_data.models import PACKAGES
from flujo.governance.sink import GATE
from flujo.services.replay.run_file import RunFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.conftest import Flujo, Project

MAIL, PHONE = "jane.doe@example.org", "+44 20 7946 0958"


@pytest.fixture(autouse=True)
def _personal(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a blueprint whose step fails, and one whose step returns what it gets."""
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "1")
    (project.root / "skills/contact.py").write_text(
        "import logging\n\n\n"
        "def echo(data: dict) -> dict:\n"
        "    logging.getLogger('contact').warning('writing to %s', data['to'])\n"
        "    return data\n\n\n"
        "def bounce(data: dict) -> None:\n"
        "    raise ValueError(f\"no mailbox {data['to']}\")\n"
    )
    for name in ("echo", "bounce"):
        project.blueprint(
            name,
            f'version: "1"\nname: {name}\ninput_schema: {{type: object}}\nsteps:\n'
            f"  - name: {name}\n    call: skills.contact:{name}\n"
            "  - name: check\n    kind: hitl\n    message: 'Write to {{ input.to }}?'\n",
        )


GIVEN = json.dumps({"to": MAIL, "note": f"call {PHONE}"})


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "a1"),
        ("trace", "a1", "--json"),
        ("trace", "a1", "echo"),
        ("trace", "a1", "--format", "otlp"),
        ("tasks", "show", "a1"),
        ("tasks", "show", "a1", "--json"),
        ("tasks", "list", "--json"),
        ("logs", "a1"),
        ("logs", "a1", "--json"),
        ("why", "a1"),
    ],
)
def test_commands_mask_what_a_run_has_recorded(
    project: Project, flujo: Flujo, words: tuple[str, ...]
) -> None:
    begun = flujo("run", "echo", "--input", GIVEN, "--run-id", "a1")
    shown = flujo(*words)
    assert begun.exit_code == ExitCode.PAUSED, begun.output
    assert shown.exit_code == 0, shown.output
    for output in (begun.output, shown.output):
        assert MAIL not in output
        assert PHONE not in output
        assert "jane" not in output


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("spacy", *PACKAGES.values())),
    reason="the extra `pii` is not installed",
)
def test_names_are_masked_with_the_variable(
    project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_STRONG", "1")
    given = json.dumps({"to": "Jane Doe", "note": "Robert Smith of Acme Ltd is in Berlin."})
    begun = flujo("run", "echo", "--input", given, "--run-id", "a1")
    assert begun.exit_code == ExitCode.PAUSED, begun.output
    for shown in (begun, flujo("trace", "a1"), flujo("trace", "a1", "--json"), flujo("tasks", "show", "a1")):
        assert "<PERSON>" in shown.output
        assert not any(name in shown.output for name in ("Jane", "Smith", "Acme", "Berlin")), shown.output
    for told in (flujo("doctor"), flujo("explain", "echo")):
        assert "person, place, organisation: masked" in told.output
        assert "names in `en`, in no other language" in told.output


def test_names_without_the_extra_end_every_command_before_it_does_anything(
    project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_STRONG", "1")
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    for words in (("run", "echo", "--input", GIVEN, "--run-id", "a1"), ("doctor",), ("explain", "echo")):
        ended = flujo(*words)
        assert ended.exit_code == ExitCode.USAGE, ended.output
        assert (
            "FLUJO_GOVERNANCE_PII_STRONG asks to mask names, and the extra `pii` is not installed"
            in ended.output
        )
        assert "pip install 'flujo[pii]'" in ended.output
    assert not (project.root / ".flujo/state.db").exists()


def test_an_error_and_its_traceback_are_masked(project: Project, flujo: Flujo) -> None:
    for shown in (flujo("run", "bounce", "--input", GIVEN, "--run-id", "b1"), flujo("trace", "b1", "bounce")):
        assert "no mailbox <EMAIL>" in shown.output
        assert "jane" not in shown.output


def test_an_exported_run_is_masked_and_marked(project: Project, flujo: Flujo) -> None:
    flujo("run", "echo", "--input", GIVEN, "--run-id", "a1")
    file = project.root / "a1.jsonl.zst"
    exported = flujo("export", "a1", "--output", str(file))
    assert exported.exit_code == 0, exported.output
    run = RunFile.read(file.read_bytes(), "a1").runs
    assert MAIL not in repr(run)
    assert "<EMAIL>" in repr(run)


def test_a_program_gets_the_values_as_they_are(
    project: Project, flujo: Flujo, monkeypatch: pytest.MonkeyPatch
) -> None:
    flujo("run", "echo", "--input", GIVEN, "--run-id", "a1")
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "0")
    assert MAIL.encode() in b"".join(
        each.read_bytes() for each in (project.root / ".flujo").glob("state.db*")
    )


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_a_project_tokenises_its_requests(
    project: Project, flujo: Flujo, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.blueprint(
        "write",
        'version: "1"\nname: write\ninput_schema: {type: string}\n'
        'agents: {clerk: {model: "openai-chat:gpt-4o-mini", model_settings: {max_tokens: 99}}}\n'
        "steps: [{name: draft, agent: clerk}, {name: check, kind: hitl, message: 'Send it?'}]\n",
    )
    settings = project.root / "flujo.toml"
    before = settings.read_text("utf-8")
    settings.write_text(f'{before}\n[governance]\nrequests = "tokenised"\n', "utf-8")
    refused = flujo("run", "write", "--input", MAIL)
    assert refused.exit_code == ExitCode.USAGE, refused.output
    assert '`requests = "tokenised"` in [governance] tokenises personal data' in refused.stderr
    assert "[FLJ455]" in refused.stderr
    assert "hint: `flujo keys new` prints a key" in refused.stderr
    with settings.open("a", encoding="utf-8") as toml:
        toml.write('\n[state]\nencryption = "FLUJO_STATE_KEYS"\n')
    monkeypatch.setenv("FLUJO_STATE_KEYS", new_key("k1").text)
    provider.will_answer(lambda request: Response(f"Dear {request['messages'][-1]['content']}"))
    paused = flujo("run", "write", "--input", MAIL, "--run-id", "a1", "--paused-ok")
    assert paused.exit_code == 0, paused.output
    (sent,) = provider.requests
    pseudonym = sent["messages"][-1]["content"]
    assert re.fullmatch(r"<EMAIL_[a-z]{8}>", pseudonym)
    shown = flujo("trace", "a1", "draft", "--messages").stdout
    assert pseudonym in shown
    file = project.root / "a1.jsonl.zst"
    assert flujo("export", "a1", "--output", str(file)).exit_code == 0
    exported = repr(RunFile.read(file.read_bytes(), "a1").runs)
    assert pseudonym in exported
    assert MAIL not in shown + exported + paused.output
    replayed = flujo("replay", "a1")
    assert replayed.exit_code == 0, replayed.output
    assert "as pseudonyms in requests to models" in flujo("doctor").stdout
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "0")
    settings.write_text(settings.read_text("utf-8").replace('requests = "tokenised"\n', ""), "utf-8")
    GATE._personal = {}
    assert f"Dear {MAIL}" in flujo("trace", "a1", "--json").stdout, "the journal has the value"
