"""`flujo lock` on the command line: written, verified, shown, compared by the word and with git."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from flujo import Flujo as Runner
from flujo import Pipeline, Step
from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec
from flujo.services.binding.binding import PipelineBinding
from flujo.services.workspace import agent_settings
from flujo.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from cli.conftest import Flujo, Project

LETTER = """\
version: "1"
name: letter
agents:
  writer:
    model: openai:gpt-5-mini-2025-08-07
    instructions: |
      Write a short letter to the customer.
      Never promise a refund.
    output_schema: {type: object, required: [text], properties: {text: {type: string}}}
    model_settings: {temperature: 0}
steps:
  - {name: write, agent: writer}
  - {kind: hitl, name: approve, message: "Send this? {{ steps.write.output.text }}"}
"""


@pytest.fixture
def letter(project: Project) -> Path:
    for name in ("ask", "flaky", "slow", "hello"):
        (project.root / f"blueprints/{name}.yaml").unlink()
    return project.blueprint("letter", LETTER)


def edit(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, "utf-8")


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_a_lock_is_written_and_verified(flujo: Flujo, project: Project) -> None:
    assert flujo("lock", "verify").exit_code == 7, "there is none"
    assert flujo("lock").exit_code == 0
    first = (project.root / "flujo.lock").read_bytes()
    assert "is up to date" in flujo("lock").stderr
    assert (project.root / "flujo.lock").read_bytes() == first
    result = flujo("lock", "verify", "--strict")
    assert (result.exit_code, result.stdout) == (0, "")
    data = json.loads(flujo("lock", "verify", "--json").stdout)
    assert data == {"matches": True, "differences": [], "notes": []}


KENNEL = """
[lockfile]
enabled = true

[agents."*"]
model = "kennel:fox-1"

[providers.kennel]
base_url = "http://127.0.0.1:1/v1"
key = "${KENNEL_KEY}"
headers = {X-Team = "canary"}
rpm = 60

[env.prod.agents."*"]
model = "openai:gpt-5-mini-2025-08-07"

[env.staging.providers.kennel]
base_url = "http://127.0.0.1:2/v1"
"""


def test_a_lock_covers_the_api_the_address_and_the_headers_of_a_provider(
    flujo: Flujo, project: Project, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KENNEL_KEY", "canary-of-a-test")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-a-test")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8") + KENNEL, "utf-8")
    assert flujo("lock").exit_code == 0
    assert "canary" not in (project.root / "flujo.lock").read_text("utf-8")
    edit(toml, ("rpm = 60", "rpm = 70\ntimeout = 3"), ('"canary"', '"other"'))
    assert flujo("lock", "verify").exit_code == 0
    for environment in ((), ("--env", "prod"), ("--env", "staging")):
        assert flujo(*environment, "run", "letter").exit_code == 1, environment
    edit(toml, ("127.0.0.1:1/v1", "127.0.0.1:3/v1"), ("X-Team", "X-Pack"))
    changed = flujo("lock", "verify")
    assert changed.exit_code == 7
    assert 'provider `base_url` was "http://127.0.0.1:1/v1" and is "http://127.0.0.1:3/v1"' in changed.stdout
    assert 'provider `headers` was ["x-team"] and is ["x-pack"]' in changed.stdout
    refused = flujo("run", "letter")
    assert (refused.exit_code, "provider `base_url`" in refused.stderr) == (7, True)
    assert flujo("--env", "prod", "run", "letter").exit_code == 1, "it has another provider"


def test_a_comment_is_not_a_change_and_changed_code_counts_only_when_strict(
    flujo: Flujo, project: Project
) -> None:
    flujo("lock")
    project.blueprint("hello", (project.root / "blueprints/hello.yaml").read_text("utf-8") + "# changed\n")
    with (project.root / "skills/work.py").open("a", encoding="utf-8") as code:
        code.write("# changed\n")
    result = flujo("lock", "verify")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "note: callable skills.work:note: the source of its module has changed" in result.stderr
    result = flujo("lock", "verify", "--strict")
    assert result.exit_code == 7
    assert "callable skills.work:note: the source of its module has changed" in result.stdout


def test_a_changed_helper_module_fails_the_strict_check_and_misses_the_cache(
    flujo: Flujo, project: Project
) -> None:
    """The blueprint names `skills.prices`, which imports `skills.taxes`, which imports `skills.rates`."""
    skills = project.root / "skills"
    (skills / "prices.py").write_text(PRICES, "utf-8")
    (skills / "taxes.py").write_text("from .rates import RATE\n\n\ndef factor():\n    return RATE\n", "utf-8")
    (skills / "rates.py").write_text("RATE = 2\n", "utf-8")
    project.blueprint("quote", QUOTE)
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8") + '\n[cache]\nbackend = "state"\n', "utf-8")
    flujo("lock")
    assert [quoted(project) for _ in range(2)] == ["20", "20"]
    assert project.notes() == ["called"], "the second run has the answer of the first"
    # Of another length: Python takes its bytecode for a source of the same second and length.
    (skills / "rates.py").write_text("RATE = 3  # was 2\n", "utf-8")
    assert "note: callable skills.prices:price: the source" in flujo("lock", "verify").stderr
    strict = flujo("lock", "verify", "--strict")
    assert strict.exit_code == 7
    assert "callable skills.prices:price: the source" in strict.stdout
    assert [quoted(project) for _ in range(2)] == ["30", "30"]
    assert project.notes() == ["called", "called"]


PRICES = """\
from skills import taxes, work


def price():
    work.note("called")
    return 10 * taxes.factor()
"""

QUOTE = """\
version: "1"
name: quote
steps:
  - {name: price, call: "skills.prices:price", effect: read, cache: {}}
output: "{{ steps.price.output }}"
"""


def quoted(project: Project) -> str:
    """Run the blueprint in a process of its own, which imports the modules as they are now."""
    output, errors = project.start("run", "quote").communicate(timeout=60)
    assert output, errors
    return str(output).strip()


def test_a_blueprint_that_is_not_locked_counts_only_when_strict(flujo: Flujo, project: Project) -> None:
    flujo("lock")
    project.blueprint("more", 'version: "1"\nname: more\nsteps: [{name: a, call: "skills.greet:greet"}]\n')
    assert flujo("lock", "verify").exit_code == 0
    result = flujo("lock", "verify", "--strict")
    assert result.exit_code == 7
    assert "blueprint blueprints/more.yaml is not in the lock" in result.stdout


def test_a_lock_of_wrong_blueprints_is_not_written(flujo: Flujo, project: Project) -> None:
    project.blueprint("wrong", 'version: "1"\nname: wrong\nsteps: [{name: a, cll: "x:y"}]\n')
    result = flujo("lock")
    assert result.exit_code == 4
    assert "cll" in result.stderr
    assert not (project.root / "flujo.lock").exists()


@pytest.mark.parametrize("command", ["verify", "show", "diff"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 99\n", "flujo.lock:1: the lock has version 99"),
        (
            "version = 2\n\n<<<<<<< HEAD\n=======\n>>>>>>> other\n",
            "flujo.lock:3: unresolved merge conflict",
        ),
        ("version = 2\n[agents\n", "flujo.lock:2: not TOML"),
        ("version = 2\n", "flujo.lock:1: the file is truncated"),
    ],
)
def test_a_broken_lock_exits_with_2_and_says_where(
    flujo: Flujo, project: Project, command: str, text: str, said: str
) -> None:
    (project.root / "flujo.lock").write_text(text, "utf-8")
    result = flujo("lock", command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "hint:" in result.stderr


def test_what_a_lock_holds_is_shown(flujo: Flujo, letter: Path) -> None:
    flujo("lock")
    shown = flujo("lock", "show")
    assert shown.stdout.splitlines()[:4] == snapshot(
        [
            "KIND       NAME                            IN                      LOCKED AS",
            "blueprint  letter                          blueprints/letter.yaml  2 steps",
            "agent      writer                          blueprints/letter.yaml  openai:gpt-5-mini-2025-08-07",
            "setting    aros.coercion_tolerant_level                            2",
        ]
    )
    held = json.loads(flujo("lock", "show", "--json").stdout)
    assert held["agents"]["blueprints/letter.yaml"]["writer"]["settings"] == {"temperature": 0}
    assert held["blueprints"]["blueprints/letter.yaml"]["order"] == ["write", "approve"]


CHANGES = (
    ("a short letter", "a long, formal letter"),
    ("gpt-5-mini", "gpt-5"),
    ("temperature: 0", "temperature: 1"),
    ("{text: {type: string}}}", "{text: {type: string}, subject: {type: string}}}"),
    ("Send this", "Mail this"),
)


def test_a_change_is_shown_by_what_it_means_without_colour(flujo: Flujo, letter: Path) -> None:
    flujo("lock")
    edit(letter, *CHANGES)
    result = flujo("lock", "diff")
    assert result.exit_code == 0
    assert result.stdout == snapshot("""\
step 'approve' of blueprints/letter.yaml: `message`
  [-Send-]{+Mail+} this? {{ steps.write.output.text }}
agent 'writer' of blueprints/letter.yaml: instructions
  Write a [-short-]{+long, formal+} letter to the customer.
  Never promise a refund.
agent 'writer' of blueprints/letter.yaml: `model` was "openai:gpt-5-mini-2025-08-07" and is "openai:gpt-5-2025-08-07"
agent 'writer' of blueprints/letter.yaml: `output_schema`
  - field `subject` is new (string)
agent 'writer' of blueprints/letter.yaml: setting `temperature` was 0 and is 1
affects
  blueprints/letter.yaml: approve, write
""")
    assert flujo("lock", "diff", "--exit-code").exit_code == 7
    data = json.loads(flujo("lock", "diff", "--json").stdout)
    assert data["matches"] is False
    assert data["affects"] == {"blueprints/letter.yaml": ["approve", "write"]}
    assert [(one["what"], one["key"]) for one in data["changes"]] == [
        ("step", "message"),
        ("agent", "instructions"),
        ("agent", "model"),
        ("agent", "output_schema"),
        ("agent", "setting temperature"),
    ]


def test_without_differences_a_message_is_printed(flujo: Flujo, letter: Path) -> None:
    flujo("lock")
    result = flujo("lock", "diff", "--exit-code")
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(flujo("lock", "diff", "--json").stdout) == {
        "matches": True,
        "changes": [],
        "affects": {},
        "waiting_runs": {},
    }


def test_a_prompt_cannot_steer_the_terminal(flujo: Flujo, letter: Path) -> None:
    flujo("lock")
    block = "|\n      Write a short letter to the customer.\n      Never promise a refund.\n"
    edit(letter, (block, '"Never \\e[2J promise"\n'))
    result = flujo("lock", "diff")
    assert "\x1b" not in result.output
    assert "\\x1b[2J" in result.stdout


def test_nothing_that_a_blueprint_names_is_imported(flujo: Flujo, project: Project) -> None:
    (project.root / "skills/work.py").write_text("raise SystemExit('imported')\n\n\ndef note(text): ...\n")
    for words in (("lock",), ("lock", "verify", "--strict"), ("lock", "show"), ("lock", "diff")):
        result = flujo(*words)
        assert result.exit_code == 0, result.output
        assert "imported" not in result.output


# Git -----------------------------------------------------------------------------------------------------


def test_a_lock_of_an_older_revision_is_compared_with_the_files(
    flujo: Flujo, project: Project, letter: Path
) -> None:
    git(project.root, "init", "-q")
    git(project.root, "add", "flujo.toml")
    git(project.root, "commit", "-qm", "no lock yet")
    flujo("lock")
    git(project.root, "add", "flujo.lock")
    git(project.root, "commit", "-qm", "a lock")
    git(project.root, "tag", "v1.0")
    edit(letter, ("Never promise", "Always offer"))
    flujo("lock")
    assert flujo("lock", "diff").stdout == ""
    for revision in ("HEAD", "v1.0", "v1.0^{commit}"):
        assert "  [-Never promise-]{+Always offer+} a refund." in flujo("lock", "diff", revision).stdout
    result = flujo("lock", "diff", "HEAD~1")
    assert result.exit_code == 7
    assert "there is no flujo.lock in HEAD~1" in result.stderr


@pytest.mark.parametrize(
    "revision", ["--output=/tmp/x", "-p", "HEAD..main", "nobody", "a b", "$(true)", "HEAD:x"]
)
def test_a_revision_that_is_none_is_refused(
    flujo: Flujo, project: Project, letter: Path, revision: str
) -> None:
    git(project.root, "init", "-q")
    git(project.root, "commit", "-qm", "empty", "--allow-empty")
    flujo("lock")
    result = flujo("lock", "diff", "--", revision)
    assert result.exit_code == 2
    assert "FLJ652" in result.stderr
    assert revision in result.stderr


def test_without_a_repository_or_git_the_reason_is_reported(
    flujo: Flujo, project: Project, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flujo("lock")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.root.parent))
    result = flujo("lock", "diff", "HEAD")
    assert result.exit_code == 2
    assert "is not in a git repository" in result.stderr
    monkeypatch.setenv("PATH", str(project.root))
    result = flujo("lock", "diff", "HEAD")
    assert result.exit_code == 2
    assert "git is not installed" in result.stderr


# Runs ----------------------------------------------------------------------------------------------------


def test_a_trace_says_under_which_lock_a_run_was_accepted(flujo: Flujo, project: Project) -> None:
    flujo("lock")
    assert flujo("run", "hello", "-i", "Ada").exit_code == 0
    digest = json.loads(flujo("trace", "--json").stdout)["lock_digest"]
    assert len(digest) == 64
    assert f"lock {digest[:12]}" in flujo("trace").stdout.splitlines()[0]


def test_a_run_that_no_lock_held_exits_with_7_where_one_is_required(flujo: Flujo, project: Project) -> None:
    assert flujo("run", "ask").exit_code == 5
    with (project.root / "flujo.toml").open("a", encoding="utf-8") as file:
        file.write("\n[lockfile]\nenabled = true\n")
    edit(project.root / "blueprints/ask.yaml", ("Send this", "Mail this"))
    flujo("lock")
    result = flujo("resume", "@last")
    assert result.exit_code == 7
    assert "was started with files that do not match the lock" in result.stderr
    assert "--accept-changes" in result.stderr
    assert flujo("resume", "@last", "--accept-changes").exit_code == 5


def test_a_trace_warns_when_another_model_answered(flujo: Flujo, project: Project) -> None:
    spec = AgentSpec("writer", "openai:gpt-5-mini")
    tree = Pipeline([Step("write", agent=spec)], "letter")
    bound = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()))
    bound._agents[id(spec)] = ScriptedAgent(["Dear customer"], model="gpt-4o\x1b[2J")
    bound.bind(tree)
    Runner[str, str](tree, binding=bound).run("a lamp")
    result = flujo("trace")
    assert "warning: model gpt-4o\\x1b[2J answered instead of openai:gpt-5-mini" in result.stderr
    assert len(json.loads(flujo("trace", "--json").stdout)["warnings"]) == 1


def test_the_diff_counts_the_runs_that_wait(
    flujo: Flujo, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = """version: "1"
name: ask
steps:
  - {name: first, call: "skills.work:note", with: {text: one}}
  - {kind: hitl, name: ok, message: "Send {{ steps.first.output }}?"}
"""
    project.blueprint("ask", ask)
    assert flujo("lock").exit_code == 0
    assert flujo("run", "ask").exit_code == flujo("run", "ask").exit_code == 5
    project.blueprint("ask", ask.replace("text: one", "text: two"))
    result = flujo("lock", "diff")
    assert "blueprints/ask.yaml: first (2 runs wait)" in result.stdout
    assert "check-resume" in result.stderr
    assert json.loads(flujo("lock", "diff", "--json").stdout)["waiting_runs"] == {"blueprints/ask.yaml": 2}
    monkeypatch.setenv("FLUJO_STATE_URI", f"sqlite:///{project.root}/flujo.toml")
    unread = flujo("lock", "diff")
    assert (unread.exit_code, "runs wait" in unread.stdout) == (0, False)
    assert "note: waiting runs were not counted" in unread.stderr


def test_a_strict_check_names_what_changes_answers_first_and_annotates_its_lines(
    flujo: Flujo, letter: Path
) -> None:
    assert flujo("lock").exit_code == 0
    edit(letter, ("Send this?", "Mail, 100%: this?"), ("a short letter", "a long letter"))
    found = flujo("lock", "verify", "--strict")
    heads = [line for line in found.stdout.splitlines() if not line.startswith(" ")]
    assert heads == [
        "agents: prompts, models, tools:",
        "blueprints and their steps:",
    ]
    lines = flujo("lock", "verify", "--strict", "--format", "github").stdout.splitlines()
    (step,) = (line for line in lines if "`message`" in line)
    places = {"step": number_of(letter, "kind: hitl"), "agent": number_of(letter, "  writer:")}
    head = f"::error file=blueprints/letter.yaml,line={places['step']},title=blueprints and their steps::"
    assert step.startswith(f"{head}step 'approve'")
    assert "100%25: this" in step
    assert lines[0].startswith(f"::error file=blueprints/letter.yaml,line={places['agent']},")
    data = flujo("lock", "verify", "--strict", "--format", "json")
    assert (data.exit_code, json.loads(data.stdout)["matches"]) == (7, False)


def test_annotations_about_code_and_settings_stand_at_their_lines(
    flujo: Flujo, project: Project, letter: Path
) -> None:
    settings, code = project.root / "flujo.toml", project.root / "skills/work.py"
    edit(letter, ("steps:\n", 'steps:\n  - {name: log, call: "skills.work:note", with: {text: x}}\n'))
    settings.write_text(
        f'{settings.read_text("utf-8")}\n[prices."a:b"]\ninput_mtok = 1\noutput_mtok = 2\n', "utf-8"
    )
    assert flujo("lock").exit_code == 0
    edit(settings, ("output_mtok = 2", "output_mtok = 3"))
    edit(code, ("def note(", "# Changed.\n\n\ndef note(extra=0, *, "))
    lines = flujo("lock", "verify", "--strict", "--format", "github").stdout.splitlines()
    places = {
        f"::error file=flujo.toml,line={number_of(settings, '[prices.')},",
        f"::error file=skills/work.py,line={number_of(code, 'def note(')},",
    }
    assert {line.partition("title")[0] for line in lines} == places


def number_of(path: Path, part: str) -> int:
    """Return the number of the first line that has this text."""
    lines = path.read_text("utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if part in line)
