"""The shipped blueprints that need no model run unchanged on the command line, with the documented results."""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warm
from agents.provider_server import Provider, Response, provider_server
from flujo.testing import scripted_runner

ROOT = Path(__file__).parents[2]
FLUJO = str(Path(sys.executable).parent / "flujo")
ARTICLES = "blueprints/inputs/articles.json"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This repository's blueprints in a separate folder."""
    shutil.copytree(ROOT / "blueprints", tmp_path / "blueprints")
    shutil.copy(ROOT / "flujo.toml", tmp_path)
    return tmp_path


def flujo(project: Path, *words: str, code: int = 0) -> str:
    """Run one command and return what it printed to stdout."""
    done = warm.run([FLUJO, *words], cwd=project, capture_output=True, check=False, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def output_of(project: Path, *words: str) -> Any:
    """Return the output of a run."""
    return json.loads(flujo(project, "run", *words))


def test_a_digest_has_a_line_for_each_article_that_can_be_read(project: Path) -> None:
    assert output_of(project, "digest", "--input-file", ARTICLES) == {
        "digest": "More night trains run between the capitals this winter.\nA field of clover feeds forty hives.",
        "unread": 1,
    }


def test_a_briefing_reads_its_articles_in_the_background(project: Path) -> None:
    assert output_of(project, "briefing", "--input-file", ARTICLES)["unread"] == 1
    [task] = json.loads(flujo(project, "tasks", "list", "--kind", "task", "--json"))
    assert (task["status"], task["parent_path"]) == ("completed", "digest")
    assert f"task    {task['run_id']} completed" in flujo(project, "trace", "@last")
    assert "gist" in flujo(project, "trace", "@last", "--full")


def test_a_nightly_index_reads_unchanged_tickets_from_the_cache(project: Path) -> None:
    found = output_of(project, "nightly", "--field", "folder=blueprints/inputs")
    subjects = found.pop("subjects").splitlines()
    assert (found, len(subjects)) == ({"tickets": 20, "unread": 0}, 20)
    toml = project / "flujo.toml"
    toml.write_text(toml.read_text() + '[cache]\nbackend = "state"\n')
    flujo(project, "schedules", "apply")
    for time in ("2026-11-28T02:30", "2026-11-29T02:30"):
        assert flujo(project, "schedules", "trigger", "nightly", "--at", time).startswith("nightly-202611")
        flujo(project, "worker", "--once")
    trace = flujo(project, "trace", "nightly-20261129T013000Z", "--json")
    assert trace.count('"cached": true') == 20


def test_a_second_opinion_collects_the_requests_of_both_reviewers(project: Path) -> None:
    answer = "OBVIOUSLY this was sent"
    found = output_of(
        project, "second_opinion", "--field", f"answer={answer}", "--field", "facts=Order A-1001"
    )
    assert found == {"ok": False, "wishes": ["Write a full sentence.", "Do not shout OBVIOUSLY."]}


def test_a_second_opinion_may_have_no_requests(project: Path) -> None:
    answer = "Your order A-1001 was sent this morning."
    found = output_of(
        project, "second_opinion", "--field", f"answer={answer}", "--field", "facts=Order A-1001 was sent"
    )
    assert found == {"ok": True, "wishes": []}


@pytest.mark.parametrize(
    ("text", "teams"),
    [
        ("I was charged twice for order A-1001 and the page shows an error", ["billing", "technical"]),
        ("Please refund A-1001", ["billing"]),
        ("How do I change my address?", ["help"]),
    ],
)
def test_a_ticket_reaches_the_teams_it_concerns(project: Path, text: str, teams: list[str]) -> None:
    assert sorted(output_of(project, "escalate", "--field", f"text={text}")) == teams


def test_a_quote_looks_up_each_article_once(project: Path) -> None:
    asked = json.dumps({"articles": ["tea", "night train", "tea", "tea"]})
    assert flujo(project, "run", "quote", "--input", asked).splitlines() == [
        "tea: 4.80 EUR",
        "night train: 59.00 EUR",
        "tea: 4.80 EUR",
        "tea: 4.80 EUR",
    ]
    assert flujo(project, "trace", "@last").count("known  cache  cached") == 2


def test_a_quote_is_cached_for_the_next_command_in_the_state_database(project: Path) -> None:
    with (project / "flujo.toml").open("a") as settings:
        settings.write('[cache]\nbackend = "state"\n')
    for _ in range(2):
        flujo(project, "run", "quote", "--input", '{"articles": ["tea"]}')
    assert "known  cache  cached" in flujo(project, "trace", "@last")


def test_a_follow_up_waits_for_the_delivery(project: Path) -> None:
    order = ["--field", "text=one lamp"]
    flujo(project, "run", "follow_up", *order, "--field", "delivery=2099-01-31T08:00:00Z", code=5)
    assert "delivered  sleep  waiting" in flujo(project, "trace", "@last")
    assert len(list((project / ".flujo/outbox").iterdir())) == 1
    flujo(project, "run", "follow_up", *order, "--field", "delivery=2026-01-31T08:00:00Z")
    assert len(list((project / ".flujo/outbox").iterdir())) == 2


def _time_passes(project: Path) -> None:
    """Let the deadlines of all waits pass."""
    with sqlite3.connect(project / ".flujo/state.db") as database:
        database.execute("UPDATE pauses SET deadline_at = asked_at WHERE answered_at IS NULL")


def _sent(project: Path) -> int:
    return len(list((project / ".flujo/outbox").iterdir()))


def test_a_user_who_completes_the_profile_gets_a_tip_a_day_later(project: Path) -> None:
    flujo(project, "run", "onboarding", "--field", "user=ada", code=5)
    assert "completed  event  waiting" in flujo(project, "trace", "@last")
    flujo(project, "tasks", "send", "--key", "ada", "profile_completed", "--field", "name=Ada")
    flujo(project, "worker", "--once")
    assert "settle  sleep  waiting" in flujo(project, "trace", "@last")
    assert _sent(project) == 1
    _time_passes(project)
    flujo(project, "worker", "--once")
    assert _sent(project) == 2
    assert "A tip, Ada" in flujo(project, "trace", "@last")


def test_a_user_who_does_not_is_reminded_once_and_waited_for_again(project: Path) -> None:
    flujo(project, "run", "onboarding", "--field", "user=bob", code=5)
    _time_passes(project)
    flujo(project, "worker", "--once")
    assert _sent(project) == 2
    assert "completed_late  event  waiting" in flujo(project, "trace", "@last")
    flujo(project, "tasks", "send", "@last", "profile_completed", "--field", "name=Bob")
    flujo(project, "worker", "--once")
    _time_passes(project)
    flujo(project, "worker", "--once")
    assert "A tip, Bob" in flujo(project, "trace", "@last")


def test_a_solvable_countdown_is_solved(project: Path) -> None:
    solved = output_of(project, "countdown", "--input", '{"numbers": [3, 7, 8, 2], "target": 59}')
    assert solved == {"reached": True, "moves": ["8 * 7 = 56", "56 + 3 = 59"]}
    nearest = output_of(project, "countdown", "--input", '{"numbers": [3, 7], "target": 59}')
    assert nearest == {"reached": False, "moves": ["7 * 3 = 21"]}


def test_questions_that_no_help_page_answers_are_escalated(project: Path) -> None:
    asked = json.dumps({"questions": ["When is my  parcel\ndelivered?", "Who are you?"]})
    known, unknown = output_of(project, "replies", "--input", asked)
    assert (known["reply"].partition(":")[0], known["open"]) == ("Delivery", False)
    assert unknown == {"reply": "We have passed your question on: Who are you?", "open": True}
    assert "reason  fell back: output of step 'answer'" in flujo(project, "trace", "@last")


@pytest.fixture
def imported(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, whose modules this process may import."""
    known = {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "blueprints"}
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield project
    for name in [each for each in sys.modules if each.split(".")[0] == "blueprints"]:
        del sys.modules[name]
    sys.modules.update(known)


@pytest.mark.parametrize(
    ("quote", "answer", "proven"),
    [
        ("It arrives on Friday at noon.", "Friday", True),
        ("It arrives on Monday at noon.", "Monday", False),
        ("It arrives on Friday at noon.", "Saturday", False),
    ],
)
async def test_an_answer_that_the_text_does_not_prove_is_not_used(
    imported: Path, quote: str, answer: str, proven: bool
) -> None:
    given = {
        "text": "Your parcel left on Monday.  It arrives on Friday at noon.",
        "question": "When does it arrive?",
    }
    script = {"reader": {"quote": quote, "answer": answer}}
    async with scripted_runner("evidence", script, project=imported) as runner:
        output = (await runner.run_result_async(given)).output
    assert output["proven"] is proven
    assert output["answer"] == (answer if proven else "")


def test_a_letter_is_edited_until_it_passes_and_a_human_approves_it(project: Path) -> None:
    note = "Order A-1002 is delayed. Order A-1002 is delayed. It arrives on Friday"
    asked = flujo(project, "run", "draft_review", "--run-id", "letter", "--input", note, "--paused-ok")
    assert "Dear customer! Order A-1002 is delayed. It arrives on Friday.\n" in asked
    asked = flujo(
        project,
        "tasks",
        "resume",
        "letter",
        "--field",
        "ok=false",
        "--field",
        "wish=Mention a voucher.",
        "--paused-ok",
    )
    assert "It arrives on Friday. This is about a voucher." in asked
    sent = json.loads(flujo(project, "tasks", "resume", "letter", "--field", "ok=true"))
    assert sent["letter"].endswith("This is about a voucher.")
    assert (project / ".flujo/outbox" / sent["file"]).read_text("utf-8") == sent["letter"]


def test_a_trace_shows_the_decision_of_each_kind(project: Path) -> None:
    flujo(project, "run", "digest", "--input-file", ARTICLES)
    assert "items   3" in flujo(project, "trace", "@last")
    flujo(project, "run", "draft_review", "--input", "a letter", "--paused-ok")
    shown = flujo(project, "trace", "@last")
    assert "next    critique" in shown
    assert "next    approval" in shown
    assert "state   approval" in shown
    assert "state:     letter:approval" in flujo(project, "tasks", "show", "@last")


def test_an_approved_refund_is_paid_once(project: Path) -> None:
    text = "Please refund A-1001"
    asked = flujo(project, "run", "refund", "--run-id", "refund", "--field", f"text={text}", "--paused-ok")
    assert "for order A-1001?" in asked
    paid = json.loads(flujo(project, "tasks", "resume", "refund", "--field", "ok=true", "--json"))
    (receipt,) = (project / ".flujo/till").iterdir()
    assert paid["output"] == receipt.read_text("utf-8") == "39.90 EUR paid back for order A-1001."


def test_an_unknown_order_asks_no_human(project: Path) -> None:
    assert flujo(project, "run", "refund", "--field", "text=Refund me").strip() == "There is no such order."
    assert not (project / ".flujo/till").exists()


def test_a_refund_without_approval_before_its_deadline_is_declined(project: Path) -> None:
    flujo(project, "run", "refund", "--run-id", "late", "--field", "text=Refund A-1001", "--paused-ok")
    _time_passes(project)
    assert "Order A-1001 is not refunded." in flujo(project, "resume", "late")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provider_server() as running:
        yield running


def at_the_desk(project: Path, provider: Provider, *words: str, code: int = 0) -> Any:
    """Run one command of the refund desk with a model of a provider; return the data that it prints."""
    blueprint = project / "blueprints/refund_desk.yaml"
    text = blueprint.read_text("utf-8").replace("local:smollm2", "openai-chat:gpt-4o-mini")
    blueprint.write_text(text, "utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = warm.run(
        [FLUJO, *words, "--json"],
        cwd=project,
        env={**os.environ, **provider.environment, "PATH": path},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_refund_is_made_as_a_human_changed_it_after_the_order_was_checked(
    project: Path, provider: Provider
) -> None:
    provider.will_answer(
        Response(tool_call=("check_order", {"order": "A-1008"})),
        Response(tool_call=("refund", {"order": "A-1008", "amount": 80})),
        '"refunded"',
    )
    begin = ["run", "refund_desk", "--run-id", "blanket", "--field", "order=A-1008"]
    paused = at_the_desk(project, provider, *begin, "--field", "request=I want 80 EUR back.", code=5)
    (question,) = paused["pauses"]
    assert "Refund 80 EUR for order A-1008?\n" in question["message"]
    assert not (project / ".flujo/refunds").exists()
    answers = ["approved=true", f"digest={question['digest']}", 'arguments={"order": "A-1008", "amount": 75}']
    fields = [word for answer in answers for word in ("--field", answer)]
    done = at_the_desk(project, provider, "tasks", "resume", "blanket", *fields, "--by", "Ana")
    assert done["output"] == {"outcome": "refunded"}
    (receipt,) = (project / ".flujo/refunds").iterdir()
    assert receipt.read_text("utf-8") == "refunded 75.00 EUR for order A-1008"
    heard = json.dumps(provider.requests[1]["messages"])
    assert "wool blanket, 75.00 EUR) can be refunded in full" in heard


def test_a_denied_refund_is_not_made_and_the_model_gets_the_reason(project: Path, provider: Provider) -> None:
    provider.will_answer(
        Response(tool_call=("search_help", {"question": "How long does delivery take?"})),
        Response(tool_call=("refund", {"order": "A-1003", "amount": 89.5})),
        '"not refunded"',
    )
    begin = ["run", "refund_desk", "--run-id", "jacket", "--field", "order=A-1003"]
    paused = at_the_desk(project, provider, *begin, "--field", "request=Where is it?", code=5)
    assert "Parcels arrive within five working days" in json.dumps(provider.requests[1]["messages"])
    fields = ["--field", "approved=false", "--field", f"digest={paused['pauses'][0]['digest']}"]
    reason = ["--field", "reason=It is on its way"]
    done = at_the_desk(project, provider, "tasks", "resume", "jacket", *fields, *reason)
    assert done["output"] == {"outcome": "not refunded"}
    assert "a human denied it: It is on its way" in json.dumps(provider.requests[2]["messages"])
    assert not (project / ".flujo/refunds").exists()


def test_a_balance_is_kept_in_a_new_run_for_each_payment(project: Path) -> None:
    flujo(project, "run", "balance", "--field", "account=ada", "--run-id", "ada", code=5)
    for amount in (30, 12, 0):
        flujo(project, "tasks", "send", "--key", "ada", "payment", "--field", f"amount={amount}")
        flujo(project, "worker", "--once")
    last = json.loads(flujo(project, "tasks", "show", "ada~3", "--json"))
    assert (last["status"], last["output"], last["continues"]) == ("completed", 42, "ada~2")
    assert "continues ada; continued as ada~3" in flujo(project, "trace", "ada~2")


def test_an_assistant_prints_and_notes_no_personal_data(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "1")
    mail = "jane.doe@example.org"
    flujo(project, "run", "assistant", "--input", "How can I help?", code=5)
    flujo(project, "tasks", "resume", "@last", "--input", f"write to {mail}", code=5)
    shown = json.loads(flujo(project, "tasks", "show", "@last", "--json"))
    assert mail not in json.dumps(shown)
    assert "Thank you, I wrote down: write to <EMAIL>" in json.dumps(shown)
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "0")
    assert mail in flujo(project, "tasks", "show", "@last", "--json")  # the database has the values
    notes = flujo(project, "tasks", "resume", "@last", "--input", "bye")
    assert json.loads(notes) == ["write to <EMAIL>", "bye"]
