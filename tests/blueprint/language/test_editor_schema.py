"""The schema for editors: current, valid, and consistent with `check`."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bad.corpus import LANGUAGE, Case
from flujo.blueprint.language.editor_schema import FILE, text
from flujo.blueprint.language.field_descriptions import DESCRIPTIONS
from flujo.blueprint.language.validation import check
from flujo.blueprint.reading.reader import read
from good.corpus import CASES as GOOD

SCHEMA: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)

HEAD = {"version": "1", "name": "x"}


def _errors(data: Any) -> list[Any]:
    return list(VALIDATOR.iter_errors(data))


def test_the_committed_file_is_generated_from_the_models() -> None:
    assert FILE.read_text("utf-8") == text(), "run `python -m flujo.blueprint.language.editor_schema`"


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_has_a_description_and_no_description_is_unused() -> None:
    keys = {key for model in SCHEMA["$defs"].values() for key in model.get("properties", {})}
    assert set(DESCRIPTIONS) == keys


@pytest.mark.parametrize("name", GOOD)
def test_it_accepts_every_good_blueprint(name: str) -> None:
    source = GOOD[name]
    data = read(source if isinstance(source, bytes) else source.encode(), name).data
    assert [error.message for error in _errors(data)] == []


@pytest.mark.parametrize("case", LANGUAGE, ids=lambda case: case.name)
def test_it_refuses_every_bad_one(case: Case) -> None:
    document = read(case.data, case.name)
    assert check(document)[0] is None
    assert _errors(document.data)


@pytest.mark.parametrize(
    ("step", "path", "word"),
    [
        ({"name": "a", "agnet": "w", "call": "m:f"}, ["steps", 0], "agnet"),
        (
            {"kind": "loop", "name": "l", "untl": "x", "steps": [{"name": "a", "call": "m:f"}]},
            ["steps", 0],
            "untl",
        ),
        ({"kind": "lop", "name": "l"}, ["steps", 0, "kind"], "lop"),
        (
            {"name": "a", "call": "m:f", "save": {"x": {"apend": "output"}}},
            ["steps", 0, "save", "x"],
            "apend",
        ),
        (
            {"name": "a", "call": "m:f", "config": {"timeout_s": []}},
            ["steps", 0, "config", "timeout_s"],
            "[]",
        ),
    ],
)
def test_it_reports_the_wrong_key_and_not_the_whole_file(
    step: dict[str, Any], path: list[str | int], word: str
) -> None:
    errors = _errors({**HEAD, "steps": [step]})
    assert any(list(error.absolute_path) == path and word in error.message for error in errors)


def test_a_file_of_agents_is_distinguished_from_a_blueprint() -> None:
    agents = {"reviewer": {"instructions": "Review.", "model_settings": {"temperature": 0}}}
    shared = {"version": "1", "agents": agents}
    assert _errors(shared) == []
    assert _errors(shared | {"include": ["./base.yaml"], "description": "For all."}) == []
    [error] = _errors(shared | {"budget": {}})
    assert "budget" in error.message
    [error] = _errors(shared | {"agents": {"reviewer": {"modl": "a:b"}}})
    assert (list(error.absolute_path), "modl" in error.message) == (["agents", "reviewer"], True)
    blueprint = HEAD | {"steps": [{"name": "a", "agent": "reviewer"}], "include": ["./agents.yaml"]}
    assert (
        _errors(blueprint | {"defaults": {"agent": {"model": "a:b"}, "config": {"timeout_s": "30s"}}}) == []
    )
    [error] = _errors(blueprint | {"defaults": {"agent": {"instructions": "x"}}})
    assert "instructions" in error.message


def test_a_misspelt_key_of_a_loop_is_one_error_about_that_key() -> None:
    inner = {"name": "a", "call": "m:f"}
    loop = {"kind": "loop", "name": "l", "until": "x", "max_iteratons": 3, "steps": [inner]}
    machine = {
        "kind": "state_machine",
        "name": "m",
        "initial": "s",
        "final": ["s"],
        "states": {"s": {"steps": [loop]}},
    }
    (error,) = _errors({**HEAD, "steps": [machine]})
    assert list(error.absolute_path) == ["steps", 0, "states", "s", "steps", 0]
    assert error.validator == "additionalProperties"
    assert "'max_iteratons' was unexpected" in error.message
