"""`flujo purge --subject`: erases a person, and shows the proof."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

SUBJECT = ("purge", "--subject", "metadata.customer=c-ana")


def of_ana(flujo: Flujo, blueprint: str, *words: str) -> None:
    flujo("run", blueprint, "--metadata", "customer=c-ana", *words)


def runs(flujo: Flujo) -> int:
    return len(json.loads(flujo("tasks", "list", "--json").stdout))


def test_a_person_is_erased_after_a_confirmation_and_the_proof_is_shown(
    flujo: Flujo, project: Project
) -> None:
    of_ana(flujo, "hello", "-i", "Ana")
    flujo("run", "hello", "-i", "Bob")
    would = flujo(*SUBJECT, "--dry-run")
    assert (would.exit_code, would.stderr) == (0, "1 run would be erased; nothing was deleted\n")
    refused = flujo(*SUBJECT)
    assert refused.exit_code == 2
    assert "refused to erase 1 run of this person and all that belongs to them" in refused.stderr
    assert runs(flujo) == 2
    done = flujo(*SUBJECT, "--yes", "--proof", "proof.json", "--by", "ada")
    assert done.exit_code == 0
    header, first, *_ = done.stdout.splitlines()
    assert header.split() == ["TABLE", "LOOKED", "AT", "REMOVED", "KEPT", "WHY"]
    assert first.split() == ["runs", "1", "1", "0"]
    assert "out of reach:\n  backups and copies of the database\n" in done.stderr
    assert "next:" not in done.stderr, "a SQLite file is rewritten at once"
    proof = json.loads((project.root / "proof.json").read_text("utf-8"))
    assert (proof["field"], proof["by"], proof["via"]) == ("metadata.customer", "ada", "cli")
    assert proof["subject"] == canonical.digest(b'{"metadata.customer":"c-ana"}')
    assert "c-ana" not in str(proof)
    assert runs(flujo) == 1
    again = json.loads(flujo(*SUBJECT, "--yes", "--json").stdout)
    assert [each["removed"] for each in again["tables"] if each["removed"]] == []


def test_runs_that_wait_are_erased_only_by_an_option(flujo: Flujo) -> None:
    of_ana(flujo, "ask")
    refused = flujo(*SUBJECT, "--yes")
    assert refused.exit_code == 2
    assert "`--cancel-paused` cancels and erases such runs, `--keep-paused` keeps them" in refused.stderr
    assert "[FLJ615]" in refused.stderr
    kept = json.loads(flujo(*SUBJECT, "--keep-paused", "--yes", "--json").stdout)
    assert kept["tables"][0]["kept"] == 1
    assert runs(flujo) == 1
    assert flujo(*SUBJECT, "--cancel-paused", "--yes").exit_code == 0
    assert runs(flujo) == 0


def test_on_postgres_the_next_command_rewrites_the_tables(
    flujo: Flujo, postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", postgres_uri)
    of_ana(flujo, "hello", "-i", "Ana")
    done = flujo(*SUBJECT, "--yes")
    assert "the freed space of the tables was not overwritten" in done.stderr
    assert "flujo purge --subject metadata.customer=VALUE --vacuum-full" in done.stderr
    done = flujo(*SUBJECT, "--vacuum-full", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)["is_overwritten"]) == (0, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give `--older-than` or `--subject`"),
        ("--older-than 1d --subject user_id=ana", "give `--older-than` or `--subject`"),
        ("--subject user_id=ana --status failed", "give `--older-than` or `--subject`"),
        ("--older-than 1d --cancel-paused", "belong to `--subject`"),
        ("--older-than 1d --proof p.json", "belong to `--subject`"),
        ("--subject user_id=ana --cancel-paused --keep-paused", "exclude each other"),
        ("--subject user=ana", "--subject names no person"),
        ("--subject user_id=ana --proof missing/p.json", "its folder does not exist"),
    ],
)
def test_options_that_contradict_each_other_delete_nothing(flujo: Flujo, words: str, says: str) -> None:
    flujo("run", "hello", "-i", "Ada")
    refused = flujo("purge", *words.split(), "--yes")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert says in refused.stderr
    assert runs(flujo) == 1
