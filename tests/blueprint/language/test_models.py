"""The models of the language: accepted values, conversions, and agreement with the tree."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from flujo.blueprint.language.models import (
    KINDS,
    Agent,
    Append,
    Blueprint,
    ConditionalStep,
    Config,
    ImportStep,
    OutputInstead,
    Step,
)
from flujo.domain import steps as tree


def _blueprint(*steps: dict[str, Any], **rest: Any) -> Blueprint:
    return Blueprint.model_validate({"version": "1", "name": "x", "steps": list(steps), **rest})


def _step(**keys: Any) -> Any:
    return _blueprint({"name": "a", "call": "m:f", **keys}).steps[0]


def test_a_step_without_kind_is_a_plain_step() -> None:
    step = _step()
    assert isinstance(step, Step)
    assert step.kind == "step"
    assert step.input is None


def test_kind_chooses_the_model() -> None:
    (step,) = _blueprint(
        {"kind": "conditional", "name": "c", "if": "x", "then": [{"name": "a", "call": "m:f"}]}
    ).steps
    assert isinstance(step, ConditionalStep)
    assert step.if_ == "x"
    assert step.then is not None
    assert isinstance(step.then[0], Step)
    assert step.else_ is None


def test_there_is_a_model_for_each_kind_of_the_tree() -> None:
    classes = [
        thing for thing in vars(tree).values() if isinstance(thing, type) and issubclass(thing, tree.BaseStep)
    ]
    kinds = {thing.kind for thing in classes if thing is not tree.BaseStep}
    assert set(KINDS) == kinds


def test_choices_are_those_of_the_tree() -> None:
    for key, choices in {"execution_mode": tree.ExecutionMode, "durability": tree.Durability}.items():
        for choice in get_args(choices):
            assert getattr(Config.model_validate({key: choice}), key) == choice


def test_defaults_are_those_of_the_tree() -> None:
    ours, theirs = Config(), tree.StepConfig()
    assert ours.model_dump(exclude={"retry"}) == {
        key: getattr(theirs, key) for key in ours.model_dump(exclude={"retry"})
    }
    loop = tree.LoopStep("again", tree.Step("one", lambda data: data), until=tree.Expr("true"))
    assert KINDS["loop"].model_fields["max_iterations"].default == loop.max_iterations


def test_typed_yaml_literals_become_expressions() -> None:
    step = _step(when=True, save={"done": False, "tries": 0, "rate": 0.5, "all": {"append": "output"}})
    assert step.when == "true"
    assert step.save == {"done": "false", "tries": "0", "rate": "0.5", "all": Append(append="output")}


def test_texts_and_expressions_are_kept_as_written() -> None:
    step = _step(when="{{ input.a }}", **{"with": {"text": " {{ input.b }} "}})
    assert step.when == "{{ input.a }}"
    assert step.with_ == {"text": " {{ input.b }} "}


def test_short_and_long_forms_are_both_accepted() -> None:
    steps = _blueprint(
        {"kind": "import", "name": "i", "blueprint": "./a.yaml", "on_failure": "skip"},
        {"kind": "import", "name": "j", "blueprint": "./a.yaml", "on_failure": {"output": None}},
    ).steps
    assert [step.on_failure for step in steps if isinstance(step, ImportStep)] == [
        "skip",
        OutputInstead(output=None),
    ]


def test_null_is_a_value_only_where_any_value_is_allowed() -> None:
    assert _step(input=None).input is None
    with pytest.raises(ValidationError, match="no value"):
        _step(when=None)


@pytest.mark.parametrize(
    "keys",
    [
        {"enforce_idempotency": 1},
        {"tags": "a"},
        {"config": {"max_retries": "1"}},
        {"config": {"max_retries": True}},
    ],
)
def test_types_are_not_converted_implicitly(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _step(**keys)


@pytest.mark.parametrize("name", ["a", "_", "A1", "sort_tickets", "yes", "x" * 128])
def test_names_are_identifiers(name: str) -> None:
    assert _step(name=name).name == name


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "s\u0430y", "a\n", "x" * 129])
def test_a_name_must_be_usable_in_expressions(name: str) -> None:
    with pytest.raises(ValidationError):
        _step(name=name)


def test_models_are_immutable() -> None:
    with pytest.raises(ValidationError):
        _step().name = "b"


def test_an_agent_may_inherit_its_model() -> None:
    assert Agent.model_validate({"extends": "writer"}).model is None
    assert Agent.model_validate({"spec": "./agent.yaml"}).model is None
