"""`flujo cache why` says what the key of a cached step was made of, and what differs from the nearest answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli.conftest import Flujo, Project

KNOWN = """\
version: "1"
name: known
input_schema: {type: object}
steps:
  - name: greet
    call: skills.known:greet
    with: {name: "{{ input.name }}"}
    cache: {ttl_s: 1h}
    config: {max_retries: 1}
"""
EACH = """\
version: "1"
name: each
steps:
  - kind: map
    name: guests
    over: 'input.split(" ")'
    max_concurrency: 1
    steps:
      - kind: cache
        name: known
        step: {name: greet, call: "skills.known:greet", with: {name: "{{ item }}"}}
"""
CODE = '''\
"""A greeting, and the module that decides it."""

from skills.words import HELLO


def greet(name):
    return HELLO + name


def reads_all(name, context):
    return name
'''


@pytest.fixture
def known(project: Project) -> Project:
    (project.root / "skills/known.py").write_text(CODE, "utf-8")
    (project.root / "skills/words.py").write_text('HELLO = "Hello "\n', "utf-8")
    toml = project.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8") + '\n[cache]\nbackend = "state"\n', "utf-8")
    project.blueprint("known", KNOWN)
    project.blueprint("each", EACH)
    return project


def run(project: Project, *words: str) -> None:
    process = project.start("run", *words)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def why(flujo: Flujo, *words: str) -> dict[str, Any]:
    result = flujo("cache", "why", *words, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def greeted(project: Project, name: str) -> None:
    run(project, "known", "--input", json.dumps({"name": name}))


def test_the_first_lookup_names_the_parts_of_its_key(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["result"] == "miss"
    assert found["nearest"] is None
    assert set(found["parts"]) == {"format", "step", "argument name", "callable skills.known:greet"}
    assert "no earlier answer to compare with" in found["why"]


def test_another_input_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    greeted(known, "Bob")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] == ["argument name"]
    assert found["nearest"]["stored"] is True
    shown = flujo("cache", "why", "greet").stdout
    assert "its key differs from the nearest earlier one in `argument name`" in shown
    assert "differs" in next(line for line in shown.splitlines() if line.startswith("argument name"))


def test_a_changed_module_below_the_callable_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    (known.root / "skills/words.py").write_text('HELLO = "Hi "\n', "utf-8")
    greeted(known, "Ada")
    assert why(flujo, "greet")["nearest"]["differs"] == ["callable skills.known:greet"]


def test_a_changed_field_of_the_step_is_the_part_that_differs(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    known.blueprint("known", KNOWN + "    output_schema: {type: string}\n")
    greeted(known, "Ada")
    assert why(flujo, "greet")["nearest"]["differs"] == ["step"]


def test_the_nearest_of_several_lookups_is_shown(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    (known.root / "skills/words.py").write_text('HELLO = "Hi "\n', "utf-8")
    greeted(known, "Bob")
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] in (["argument name"], ["callable skills.known:greet"])


def test_a_hit_is_called_a_hit(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    greeted(known, "Ada")
    assert why(flujo, "greet")["result"] == "hit"
    assert "its answer came from the cache" in flujo("cache", "why", "greet").stdout
    first = json.loads(flujo("tasks", "list", "--json").stdout)[-1]["run_id"]
    assert why(flujo, "greet", "--run", first)["result"] == "miss"


def test_an_answer_that_is_gone_from_the_cache_is_the_reason(known: Project, flujo: Flujo) -> None:
    known.blueprint("known", KNOWN.replace("1h", "1ms"))
    greeted(known, "Ada")
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["nearest"]["differs"] == []
    assert found["nearest"]["stored"] is False
    assert "expired" in found["why"]


def test_answers_in_memory_are_the_reason(known: Project, flujo: Flujo) -> None:
    toml = known.root / "flujo.toml"
    toml.write_text(toml.read_text("utf-8").replace('backend = "state"', 'backend = "memory"'), "utf-8")
    greeted(known, "Ada")
    greeted(known, "Ada")
    assert "kept in the memory of one process" in why(flujo, "greet")["why"]


def test_a_step_without_a_key_says_why(known: Project, flujo: Flujo) -> None:
    known.blueprint("known", KNOWN.replace("skills.known:greet", "skills.known:reads_all"))
    greeted(known, "Ada")
    found = why(flujo, "greet")
    assert found["result"] == "not cached"
    assert found["why"] == "it is executed every time: `skills.known:reads_all` takes `context`"


def test_a_step_in_a_map_is_named_with_or_without_its_count(known: Project, flujo: Flujo) -> None:
    run(known, "each", "--input", "Ada Bob Ada")
    assert why(flujo, "guests.1/known")["nearest"]["differs"] == ["argument name"]
    assert why(flujo, "guests[2]/known")["result"] == "hit"
    for name in ("known", "guests/known"):
        assert [each["result"] for each in why(flujo, name)["lookups"]] == ["miss", "miss", "hit"]


def test_an_unknown_step_lists_the_cached_ones(known: Project, flujo: Flujo) -> None:
    run(known, "each", "--input", "Ada")
    result = flujo("cache", "why", "nonsense")
    assert result.exit_code == 2
    assert "its cached steps: `guests/known`" in result.stderr
    assert flujo("cache", "why", "guests/knwn").stderr.count("did you mean `guests/known`?") == 1


def test_an_unknown_run_is_an_error(known: Project, flujo: Flujo) -> None:
    greeted(known, "Ada")
    assert flujo("cache", "why", "greet", "--run", "nothing").exit_code != 0
