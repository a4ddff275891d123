"""The language of a file of cases: inputs of a blueprint, expected outputs, and what scores outputs.

`Dataset` is the format of pydantic-evals; `flujo.blueprint.datasets` turns it into a `CasesFile`.
"""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.

from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from flujo.blueprint.language.models import Strict, tag
from flujo.blueprint.language.values import CallableName, Identifier, Maybe, problem
from flujo.domain.gate import MARGIN

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Evaluator(Strict):
    """An evaluator that the file defines: a model that judges, a callable, or an expression."""

    name: Annotated[Identifier, Field(description="The name under which its scores are kept.")]
    judge: Annotated[
        Maybe[str], Field(description="What a good output is, in words for the model that judges.")
    ] = None
    model: Annotated[
        Maybe[str], Field(description="The model that judges; by default that of `[evaluation]`.")
    ] = None
    model_settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the model that judges."
    )
    call: Annotated[
        Maybe[CallableName],
        Field(description="`module:callable`; it gets input, output, expected, metadata."),
    ] = None
    expr: Annotated[
        Maybe[str], Field(description="An expression over `input`, `output`, `expected` and `metadata`.")
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> "Evaluator":
        if sum(each is not None for each in (self.judge, self.call, self.expr)) != 1:
            raise problem(
                "wrong-value",
                f"evaluator `{self.name}` needs one of `judge`, `call` and `expr`",
                'write for instance `expr: "output == expected"`',
                key="name",
            )
        if self.judge is None and (self.model is not None or self.model_settings):
            raise problem(
                "wrong-value",
                f"evaluator `{self.name}` has a model, but no `judge`",
                "remove `model` and `model_settings`, or write what a good output is under `judge`",
                key="name",
            )
        return self


def _form(value: Any) -> str:
    return tag("mapping" if isinstance(value, dict | BaseModel) else "text")


AnyEvaluator = Annotated[
    Annotated[Identifier, Tag(tag("text"))] | Annotated[Evaluator, Tag(tag("mapping"))], Discriminator(_form)
]


class Threshold(Strict):
    """What the scores of one evaluator must reach."""

    mean: Annotated[Maybe[Share], Field(description="The least mean score.")] = None
    min: Annotated[Maybe[Share], Field(description="The least score of each case.")] = None

    @model_validator(mode="after")
    def _some(self) -> "Threshold":
        if self.mean is None and self.min is None:
            raise problem("wrong-value", "a threshold needs `mean` or `min`", "write `{mean: 0.8}`")
        return self


class Case(Strict):
    """An input, and the expected output."""

    name: Annotated[Name, Field(description="The name of the case, unique in the file.")]
    input: Annotated[Any, Field(description="The input of the blueprint.")] = None
    expected: Annotated[Any, Field(description="The expected output, for the evaluators.")] = None
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Facts about the case, for the evaluators."
    )


class CasesFile(Strict):
    """A whole file of cases."""

    blueprint: Annotated[
        Maybe[str],
        Field(description="The blueprint that runs the cases: its path in the project, or its name."),
    ] = None
    evaluators: Annotated[
        list[AnyEvaluator],
        Field(description="Names of `[evaluation.evaluators.NAME]`, or definitions.", min_length=1),
    ]
    thresholds: dict[str, Threshold] = Field(
        default_factory=dict, description="By evaluator, what its scores must reach."
    )
    margin: Annotated[
        float, Field(ge=0, lt=1, description="The loss of mean score that `--against` counts as equal.")
    ] = MARGIN
    repeat: Annotated[
        int, Field(ge=1, le=100, description="How often each case runs; its scores are averaged.")
    ] = 1
    cases: Annotated[list[Case], Field(min_length=1, description="The cases.")]


def evaluator_name(evaluator: str | Evaluator) -> str:
    """Return the name of an evaluator, which a file names or defines."""
    return evaluator if isinstance(evaluator, str) else evaluator.name


# pydantic-evals -------------------------------------------------------------------------------------------

DatasetEvaluators = list[str | dict[str, Any]]


class DatasetCase(Strict):
    """A case of pydantic-evals."""

    name: Maybe[Name] = None
    inputs: Any
    metadata: Any = None
    expected_output: Any = None
    evaluators: DatasetEvaluators = Field(default_factory=list)


class Dataset(Strict):
    """A dataset of pydantic-evals, as its `to_file` writes it."""

    schema_: Annotated[str | None, Field(alias="$schema")] = None
    name: str | None = None
    cases: Annotated[list[DatasetCase], Field(min_length=1)]
    evaluators: DatasetEvaluators = Field(default_factory=list)
    report_evaluators: DatasetEvaluators = Field(default_factory=list)
