"""`flujo evals`: cases run once and are scored, versions are compared, runs become cases, mistakes are named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import warm
from agents.provider_server import Fault, Provider, Response, provider_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.conftest import Flujo, Project

SORT = """\
version: "1"
name: sort
input_schema: {type: string}
steps:
  - {name: sort, call: "skills.sorting:label", with: {text: "{{ input }}"}}
output: "{{ steps.sort.output }}"
"""

SORTING = '''\
"""Sorts tickets, and scores how well that went."""

import time
from pathlib import Path

HERE = Path(__file__).parent.parent


def label(text: str) -> str:
    with (HERE / "notes.txt").open("a", encoding="utf-8") as notes:
        notes.write(f"{text.split()[0]}\\n")
    if text.startswith("bang"):
        raise ValueError("bang")
    if text.startswith("slow"):
        (HERE / "waiting").touch()
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return "bug" if "broken" in text else "other"


def closeness(output: str, expected: str) -> float:
    return 0.5 + 0.5 * (output == expected)
'''

CASES = """\
blueprint: sort
evaluators:
  - {name: equal, expr: "output == expected"}
  - {name: close, call: "skills.sorting:closeness"}
thresholds:
  equal: {mean: 0.6, min: 0.0}
cases:
  - {name: lamp, input: lamp is broken, expected: bug}
  - {name: tea, input: tea please, expected: other}
  - {name: bang, input: bang, expected: other}
"""


@pytest.fixture
def cases(project: Project) -> Path:
    (project.root / "skills/sorting.py").write_text(SORTING, "utf-8")
    project.blueprint("sort", SORT)
    path = project.root / "evals/sort.yaml"
    path.parent.mkdir()
    path.write_text(CASES, "utf-8")
    return path


def report(flujo: Flujo, *words: str, code: int = 0) -> dict[str, Any]:
    done = flujo("evals", "run", *words, "--format", "json")
    assert done.exit_code == code, done.output
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def more(path: Path, count: int) -> None:
    """Add cases that are passed."""
    lines = [f"  - {{name: t{n}, input: t{n} please, expected: other}}\n" for n in range(count)]
    path.write_text(path.read_text("utf-8") + "".join(lines), "utf-8")


def git(root: Path, *words: str) -> None:
    names = ("-c", "user.email=a@b.example", "-c", "user.name=Ana")
    subprocess.run(["git", *names, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def main(project: Project, cases: Path) -> Path:
    """A repository of git in which `main` has the project, and 20 cases more."""
    more(cases, 20)
    git(project.root, "init", "-qb", "main")
    git(project.root, "add", ".")
    git(project.root, "commit", "-qm", "first")
    return cases


# Running -------------------------------------------------------------------------------------------------


def test_cases_are_run_and_scored_the_worst_first(flujo: Flujo, cases: Path) -> None:
    done = flujo("evals", "run", "sort")
    assert done.exit_code == 0, done.output
    table = done.stdout.splitlines()
    assert table[1].split()[:3] == ["equal", "0.67", "███████░░░"]
    assert [line.split()[0] for line in table[5:8]] == ["bang", "lamp", "tea"]
    assert "ValueError: bang" in table[5]
    assert "passed" in done.stderr


def test_completed_cases_are_not_run_again(flujo: Flujo, project: Project, cases: Path) -> None:
    first = report(flujo, "sort")
    again = report(flujo, "evals/sort.yaml")
    assert sorted(project.notes()) == ["bang", "lamp", "tea"]
    runs = [[run["run_id"] for case in one["cases"] for run in case["runs"]] for one in (first, again)]
    assert runs[0] == runs[1]
    assert all(run["recorded"] for case in again["cases"] for run in case["runs"])


def test_a_comment_does_not_change_the_version_and_code_does(
    flujo: Flujo, project: Project, cases: Path
) -> None:
    report(flujo, "sort")
    project.blueprint("sort", f"# a comment\n{SORT}")
    report(flujo, "sort")
    assert len(project.notes()) == 3
    (project.root / "skills/sorting.py").write_text(f"{SORTING}\nMORE = 1\n", "utf-8")
    report(flujo, "sort")
    assert len(project.notes()) == 6


def test_cases_are_runs_of_their_own_kind(flujo: Flujo, cases: Path) -> None:
    report(flujo, "sort")
    assert json.loads(flujo("tasks", "list", "--json").stdout) == []
    listed = json.loads(
        flujo("tasks", "list", "--kind", "case", "--metadata", "evals_case=tea", "--json").stdout
    )
    assert [each["status"] for each in listed] == ["completed"]


def test_repeats_are_averaged(flujo: Flujo, project: Project, cases: Path) -> None:
    cases.write_text(cases.read_text("utf-8").replace("cases:", "repeat: 2\ncases:"), "utf-8")
    found = report(flujo, "sort")
    assert sorted(project.notes()) == ["bang", "bang", "lamp", "lamp", "tea", "tea"]
    assert found["evaluators"]["equal"]["count"] == 3


@pytest.mark.parametrize(("old", "new"), [("mean: 0.6", "mean: 0.7"), ("min: 0.0", "min: 0.1")])
def test_a_missed_threshold_is_exit_code_1(flujo: Flujo, cases: Path, old: str, new: str) -> None:
    cases.write_text(cases.read_text("utf-8").replace(old, new), "utf-8")
    done = flujo("evals", "run", "sort")
    assert done.exit_code == 1
    assert "equal: the mean 0.67 is below 0.7" in done.stderr or "case `bang` has 0.00" in done.stderr


def test_reports_for_github_and_junit_name_the_line_of_a_case(flujo: Flujo, cases: Path) -> None:
    cases.write_text(cases.read_text("utf-8").replace("min: 0.0", "min: 0.1"), "utf-8")
    lines = flujo("evals", "run", "sort", "--format", "github").stdout.splitlines()
    assert lines[0].startswith(
        "::error file=evals/sort.yaml,line=10,title=case bang::equal: case `bang` has 0.00"
    )
    xml = flujo("evals", "run", "sort", "--format", "junit").stdout
    assert 'tests="5" failures="2" skipped="0"' in xml


def test_another_blueprint_runs_the_cases(flujo: Flujo, project: Project, cases: Path) -> None:
    project.blueprint("other", SORT.replace("name: sort\ninput", "name: other\ninput"))
    assert report(flujo, "other", "--cases", "evals/sort.yaml")["blueprint"] == "other"


def test_a_dataset_of_pydantic_evals_is_run(flujo: Flujo, project: Project, cases: Path) -> None:
    text = "cases:\n- {name: a, inputs: it is broken, expected_output: bug}\nevaluators: [EqualsExpected]\n"
    (project.root / "data.yaml").write_text(text, "utf-8")
    found = report(flujo, "sort", "--cases", "data.yaml")
    assert found["evaluators"]["EqualsExpected"]["mean"] == 1


def test_a_killed_command_continues_with_the_cases_that_are_left(
    flujo: Flujo, project: Project, cases: Path
) -> None:
    text = cases.read_text("utf-8") + "  - {name: slow, input: slow, expected: other}\n"
    cases.write_text(text, "utf-8")
    words = ("evals", "run", "sort", "--max-concurrency", "1")
    process = project.start(*words)
    while not (project.root / "waiting").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (project.root / "go").touch()
    found = report(flujo, *words[2:])
    assert found["evaluators"]["equal"]["count"] == 4
    assert sorted(project.notes()) == ["bang", "lamp", "slow", "slow", "tea"], (
        "only the cut-off one runs again"
    )


def test_ctrl_c_names_the_command_that_continues(flujo: Flujo, project: Project, cases: Path) -> None:
    sorting = SORTING.replace("def label", "import asyncio\n\n\nasync def label").replace(
        "time.sleep", "await asyncio.sleep"
    )
    (project.root / "skills/sorting.py").write_text(sorting, "utf-8")
    text = cases.read_text("utf-8") + "  - {name: slow, input: slow, expected: other}\n"
    cases.write_text(text, "utf-8")
    process = project.start("evals", "run", "sort")
    while not (project.root / "waiting").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopped; completed cases are kept" in errors
    assert "next: flujo evals run sort" in errors
    (project.root / "go").touch()
    assert report(flujo, "sort")["evaluators"]["equal"]["count"] == 4


def test_cases_are_kept_in_postgres(
    flujo: Flujo, project: Project, main: Path, empty_postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", empty_postgres_uri)
    assert flujo("migrate").exit_code == 0
    project.blueprint("sort", SORT.replace("{{ steps.sort.output }}", "{{ steps.sort.output }}?"))
    found = report(flujo, "sort", "--against", "main", code=1)
    again = report(flujo, "sort", "--against", "main", code=1)
    assert (found["comparison"], len(project.notes())) == (again["comparison"], 20 + 20)


# Comparing -----------------------------------------------------------------------------------------------


def test_a_worse_version_is_found_before_all_cases_have_run(
    flujo: Flujo, project: Project, main: Path
) -> None:
    project.blueprint("sort", SORT.replace("{{ steps.sort.output }}", "{{ steps.sort.output }}?"))
    found = report(flujo, "sort", "--against", "main", code=1)
    assert found["comparison"]["verdict"] == "worse"
    assert found["comparison"]["evaluators"]["equal"]["mean"] < -0.8
    assert found["not_run"] > 0


def test_the_same_version_runs_nothing_twice(flujo: Flujo, project: Project, main: Path) -> None:
    found = report(flujo, "sort", "--against", "main")
    assert (found["comparison"]["verdict"], found["comparison"]["same_version"]) == ("better or equal", True)
    assert len(project.notes()) == 23


def test_too_few_cases_are_exit_code_9_with_the_number_that_is_missing(
    flujo: Flujo, project: Project, main: Path
) -> None:
    project.blueprint(
        "sort", SORT.replace("name: sort, call", "name: label, call").replace("steps.sort", "steps.label")
    )
    done = flujo("evals", "run", "sort", "--against", "main")
    assert done.exit_code == 9, done.output
    assert "cannot tell: files against main; it needs about " in done.stderr


def test_a_revision_that_does_not_exist_is_named(flujo: Flujo, main: Path) -> None:
    done = flujo("evals", "run", "sort", "--against", "mian")
    assert (done.exit_code, "git revision 'mian' does not exist" in done.stderr) == (2, True)


def test_locks_are_compared_by_their_recorded_scores(flujo: Flujo, project: Project, main: Path) -> None:
    flujo("lock")
    report(flujo, "sort")
    old = project.root / "old.lock"
    (project.root / "flujo.lock").rename(old)
    project.blueprint("sort", SORT.replace("{{ steps.sort.output }}", "{{ steps.sort.output }}?"))
    flujo("lock")
    against = report(flujo, "sort", "--against", "old.lock", code=1)
    assert against["comparison"]["verdict"] == "worse"
    report(flujo, "sort", code=1)
    compared = flujo("evals", "compare", "flujo.lock", "old.lock", "--json")
    data = json.loads(compared.stdout)
    assert (compared.exit_code, data["verdict"], data["paired"]) == (1, "worse", True)
    done = flujo("evals", "compare", "old.lock", "flujo.lock")
    assert (done.exit_code, "better or equal" in done.stdout) == (0, True)
    assert "0.96 ██████████  0.00 ░░░░░░░░░░" in done.stdout
    shown = flujo("evals", "show", "old.lock")
    assert ["sort", "equal", "0.96"] in [line.split()[:3] for line in shown.stdout.splitlines()]
    since = flujo("evals", "show", "1h..", "--json")
    assert since.exit_code == 0, since.output
    [close, equal] = json.loads(since.stdout)
    assert (close["evaluator"], equal["count"], equal["least"]) == ("close", 46, 0)
    assert "there are no scores of ..2020-01-01" in flujo("evals", "show", "..2020-01-01").stderr
    assert "no matching scores" in flujo("evals", "list", "--until", "1h").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("abcdef12", "abcdef34"), "there are no scores of abcdef12"),
        (("zzz", "abcdef34"), "has no digest of a lock"),
        (("2026-13-01..", "..2027-01-01"), "2026-13-01"),
    ],
)
def test_a_side_without_scores_is_refused(
    flujo: Flujo, cases: Path, words: tuple[str, str], message: str
) -> None:
    report(flujo, "sort")
    done = flujo("evals", "compare", *words)
    assert done.exit_code == 2
    assert message in done.stderr


# Models --------------------------------------------------------------------------------------------------

MODEL = """\
version: "1"
name: sort
input_schema: {type: string}
agents:
  sorter:
    model: openai-chat:gpt-4o-mini
    instructions: Sort tickets.
    model_settings: {max_tokens: 100}
steps:
  - {name: sort, agent: sorter, input: "{{ input }}", config: {max_retries: 0}}
output: "{{ steps.sort.output }}"
"""

JUDGED = """\
blueprint: sort
evaluators:
  - {name: polite, judge: Is it polite?, model: "openai-chat:gpt-4o-mini"}
cases:
  - {name: lamp, input: lamp}
  - {name: tea, input: tea}
  - {name: cup, input: cup}
"""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, project: Project, cases: Path) -> Iterator[Provider]:
    with provider_server() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        project.blueprint("sort", MODEL)
        cases.write_text(JUDGED, "utf-8")
        yield running


def judge(request: dict[str, Any]) -> Response:
    """Answer a judge with a score, and the blueprint with text."""
    is_judge = "Is it polite?" in json.dumps(request)
    return Response('{"reason": "it is kind", "score": 0.75}' if is_judge else "fine")


def test_a_judge_scores_once(flujo: Flujo, provider: Provider) -> None:
    provider.will_answer(judge)
    found = report(flujo, "sort")
    assert found["evaluators"]["polite"]["mean"] == 0.75
    assert found["cases"][0]["runs"][0]["reasons"] == {"polite": "it is kind"}
    assert found["cost_usd"] > 0
    asked = len(provider.requests)
    again = report(flujo, "sort")
    assert (again["evaluators"]["polite"]["mean"], again["cost_usd"]) == (0.75, 0)
    assert len(provider.requests) == asked


def test_a_judge_is_not_asked_again_after_a_kill(
    flujo: Flujo, provider: Provider, project: Project, cases: Path
) -> None:
    lines = JUDGED.splitlines(keepends=True)
    cases.write_text("".join(lines[:-2]), "utf-8")
    provider.will_answer(judge)
    killed = "import os, signal; from flujo.state.store import SqlStateStore as Store; "
    killed += "Store.add_evaluations = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
    killed += "from flujo.__main__ import main; import sys; sys.argv[0] = 'flujo'; main()"
    process = warm.run(
        [sys.executable, "-c", killed, "evals", "run", "sort"], cwd=project.root, capture_output=True
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    asked = len(provider.requests)
    assert asked == 2, (
        "killed after the answer of the judge, and before the command has stored anything of it"
    )
    found = report(flujo, "sort")
    assert (found["evaluators"]["polite"]["mean"], len(provider.requests)) == (0.75, asked)
    [run] = json.loads(flujo("tasks", "list", "--kind", "eval", "--json").stdout)
    assert (run["status"], run["parent"]) == ("completed", found["cases"][0]["runs"][0]["run_id"])
    [score] = json.loads(flujo("evals", "list", "--json").stdout)
    assert (score["key"], score["score"]) == (run["run_id"], 0.75)


def test_the_money_is_never_exceeded_and_the_rest_is_exit_code_9(
    flujo: Flujo, provider: Provider, cases: Path
) -> None:
    provider.will_answer(judge)
    whole = report(flujo, "sort", "--max-cost", "1")["cost_usd"]
    part = whole / 3 * 1.4
    text = JUDGED.replace("input: ", "input: other ")
    cases.write_text(text, "utf-8")
    found = report(flujo, "sort", "--max-cost", f"{part:f}", code=9)
    assert found["cost_usd"] <= part
    assert found["not_run"] > 0


def test_a_model_that_cannot_be_reached_leaves_the_denominator(flujo: Flujo, provider: Provider) -> None:
    provider.will_answer(Fault.BAD_REQUEST)
    found = report(flujo, "sort", code=9)
    assert found["left_out"] == ["lamp", "tea", "cup"]
    assert found["evaluators"]["polite"]["count"] == 0
    provider.answers[:] = [judge]
    assert report(flujo, "sort")["evaluators"]["polite"]["count"] == 3


def test_a_judge_without_a_price_under_a_limit_is_exit_code_6(
    flujo: Flujo, provider: Provider, cases: Path
) -> None:
    provider.will_answer(judge)
    text = JUDGED.replace(
        'judge: Is it polite?, model: "openai-chat:gpt-4o-mini"',
        'judge: Is it polite?, model: "openai-chat:my-own"',
    )
    cases.write_text(text, "utf-8")
    done = flujo("evals", "run", "sort", "--max-cost", "1")
    assert done.exit_code == 6, done.output
    assert "evaluator `polite`" in done.stderr


# Making cases --------------------------------------------------------------------------------------------


def test_a_run_becomes_a_case_and_comments_stay(flujo: Flujo, cases: Path) -> None:
    cases.write_text(f"# mine\n{cases.read_text('utf-8')}", "utf-8")
    flujo("run", "sort", "--input", "cup is broken", "--run-id", "cup")
    done = flujo("evals", "add", "cup", "--name", "the cup")
    assert (done.exit_code, "added 1 case to evals/sort.yaml" in done.stderr) == (0, True)
    text = cases.read_text("utf-8")
    assert text.startswith("# mine\n")
    assert text.endswith("  - name: the cup\n    input: cup is broken\n    expected: bug\n")
    again = flujo("evals", "add", "cup")
    assert "added 0 cases to evals/sort.yaml; 1 case already there" in again.stderr
    assert report(flujo, "sort")["evaluators"]["equal"]["count"] == 4


def test_a_first_file_is_written(flujo: Flujo, project: Project, cases: Path) -> None:
    cases.unlink()
    flujo("run", "sort", "--input", "cup is broken", "--run-id", "cup")
    assert flujo("evals", "add", "cup").exit_code == 0
    assert report(flujo, "sort")["evaluators"]["equal"]["mean"] == 1


def test_secrets_are_masked_in_a_case(
    flujo: Flujo, cases: Path, monkeypatch: pytest.MonkeyPatch, project: Project
) -> None:
    flujo("run", "sort", "--input", "a sk-verysecret-12345678 is broken", "--run-id", "leak")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret-12345678")
    assert flujo("evals", "add", "leak").exit_code == 0
    assert "sk-verysecret" not in cases.read_text("utf-8")


def test_runs_with_low_scores_become_cases_without_an_expected_output(
    flujo: Flujo, cases: Path, project: Project
) -> None:
    flujo("run", "sort", "--input", "low is broken", "--run-id", "low")
    _rate(project.root, "low", 0.2)
    done = flujo("evals", "add", "--from", "blueprint=sort score<0.5")
    assert "added 1 case" in done.stderr
    assert cases.read_text("utf-8").endswith("  - name: low\n    input: low is broken\n")


def test_a_version_is_compared_with_scores_of_runs_that_have_the_inputs_of_cases(
    flujo: Flujo, cases: Path, project: Project
) -> None:
    flujo("run", "sort", "--input", "tea please", "--run-id", "tea")
    _rate(project.root, "tea", 0.5, "equal")
    found = report(flujo, "sort", "--against", "blueprint=sort", code=9)["comparison"]
    assert found["against"] == "blueprint=sort"
    assert (found["evaluators"]["equal"]["pairs"], found["evaluators"]["equal"]["mean"]) == (1, 0.5)
    for conditions, message in [
        ("lock=abcdef", "there are no scores of lock=abcdef"),
        ("blueprnt=sort", "--against: 'blueprnt=sort' is not a condition"),
        ("..2020-01-01", "there are no scores of ..2020-01-01"),
    ]:
        done = flujo("evals", "run", "sort", "--against", conditions)
        assert (done.exit_code, message in done.stderr) == (2, True), done.output
    cases.write_text(cases.read_text("utf-8").replace("tea please", "coffee please"), "utf-8")
    done = flujo("evals", "run", "sort", "--against", "evaluator=equal score<0.6")
    assert "no run of evaluator=equal score<0.6 has the input of a case of evals/sort.yaml" in done.stderr


def _rate(root: Path, run_id: str, score: float, evaluator: str = "person") -> None:
    """Store a score of a run."""
    code = f"""
import asyncio
from flujo.domain.evaluations import Evaluation
from flujo.services.project.project import find_project
from flujo.services.workspace import Workspace
from pathlib import Path
async def main():
    async with Workspace(find_project(Path({str(root)!r}))) as ws:
        store = await ws.store()
        run = await store.run({run_id!r})
        await store.add_evaluations([Evaluation(key="k", run_id=run.run_id, pipeline=run.pipeline,
            closure=run.closure, evaluator={evaluator!r}, score={score}, by="ana")])
asyncio.run(main())
"""
    warm.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("evals", "run", "srt"), 2, "did you mean `sort`?"),
        (("evals", "run", "missing.yaml"), 2, "missing.yaml cannot be read"),
        (("evals", "run", "sort", "--max-cost", "0"), 2, "is not an amount above 0"),
        (("evals", "add", "no-such-run"), 8, "no-such-run"),
        (("evals", "add"), 2, "choose runs by their scores"),
        (("evals", "add", "--from", "blueprnt=sort"), 2, "did you mean `blueprint`?"),
        (("evals", "add", "--from", "score<much"), 2, "is not a number"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(
    flujo: Flujo, cases: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    done = flujo("run", "sort", "--input", "tea", "--run-id", "tea")
    assert done.exit_code == 0
    done = flujo(*words)
    assert (done.exit_code, message in done.stderr) == (code, True), done.output


def test_a_mistake_in_a_file_is_shown_with_its_line_and_nothing_runs(
    flujo: Flujo, project: Project, cases: Path
) -> None:
    cases.write_text(cases.read_text("utf-8").replace("name: tea, input", "name: tea, inptu"), "utf-8")
    done = flujo("evals", "run", "sort")
    assert done.exit_code == 2
    assert "evals/sort.yaml:9:17" in done.stderr
    assert "did you mean `input`?" in done.stderr
    assert project.notes() == []


def test_an_input_that_does_not_fit_is_named_with_its_line_and_nothing_runs(
    flujo: Flujo, project: Project, cases: Path
) -> None:
    cases.write_text(cases.read_text("utf-8").replace("input: tea please", "input: [1]"), "utf-8")
    done = flujo("evals", "run", "sort")
    assert done.exit_code == 2
    assert "evals/sort.yaml:9: case `tea`: " in done.stderr
    assert project.notes() == []


def test_a_run_that_has_not_completed_is_not_a_case(flujo: Flujo, cases: Path) -> None:
    flujo("run", "ask", "--run-id", "waits")
    done = flujo("evals", "add", "waits")
    assert (done.exit_code, "run waits is paused" in done.stderr) == (2, True)
