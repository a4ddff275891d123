"""`[[budgets.rule]]` of flujo.toml: budgets that several runs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from flujo.domain.cron import zone_problem
from flujo.domain.metadata import METADATA_KEY
from flujo.domain.shared_budgets import (
    RULE_NAME,
    BudgetRule,
    Match,
    OnExhausted,
    Span,
    Window,
    is_property,
)
from flujo.domain.usage import UnknownPrice, UsageLimits


def _rule_name(name: str) -> str:
    if not RULE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a rule: write up to 63 letters, digits, `_` and `-`, a letter first"
        )
    return name


class MatchTable(BaseModel):
    """`match` of a rule: the runs that it counts have all of these properties."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blueprint: str | None = Field(default=None, min_length=1)
    """The name of a blueprint of the project."""
    pipeline: str | None = Field(default=None, min_length=1)
    """The name of a pipeline written in Python."""
    user: str | None = Field(default=None, min_length=1)
    """The `user_id` of the runs."""
    metadata: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    """Keys of the metadata, with the values that they have."""

    @field_validator("metadata")
    @classmethod
    def _are_keys(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in given:
            if not METADATA_KEY.fullmatch(name):
                raise ValueError(f"`match.metadata` names {name!r}: write a key like `team`")
        return given

    @model_validator(mode="after")
    def _can_match(self) -> MatchTable:
        if self.blueprint is not None and self.pipeline is not None:
            raise ValueError("no run is of a `blueprint` and of a `pipeline`, so the rule can never match")
        return self


class RuleTable(BaseModel):
    """`[[budgets.rule]]`: an amount that all runs share which the rule matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_rule_name)]
    """The name of the rule, in errors and in `flujo budgets`."""
    match: MatchTable = MatchTable()
    """The runs that count, for instance `{blueprint = "triage", metadata.team = "support"}`. Default: all."""
    per: tuple[str, ...] = ()
    """What has an amount of its own: `user`, `blueprint` or `metadata.KEY`. Default: one amount for all."""
    window: Span = "month"
    """How long an amount lasts: `day`, `month`, or `none` for one amount without an end."""
    zone: str = "UTC"
    """The time zone in which days and months begin: a name of the IANA database."""
    total_cost_usd_limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """US dollars, for all models together."""
    total_tokens_limit: int | None = Field(default=None, gt=0)
    """Tokens in and out."""
    requests_limit: int | None = Field(default=None, gt=0)
    """Requests to models."""
    unknown_price: UnknownPrice = "refuse"
    """With a cost limit: `refuse` or `allow` requests to models with unknown pricing."""
    on_exhausted: OnExhausted = "fail"
    """What happens to a step whose request has no room: it fails, the run pauses until the next window, or a
    `granular` step makes a last request without tools; with `finish` every other step fails."""

    @field_validator("per")
    @classmethod
    def _are_properties(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not is_property(name):
                raise ValueError(f"`per` names {name!r}: write `user`, `blueprint` or `metadata.KEY`")
        if len(set(names)) < len(names):
            raise ValueError("`per` names something twice")
        return names

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        if wrong := zone_problem(zone):
            raise ValueError(f"{wrong[0]}: {wrong[1]}")
        return zone

    @model_validator(mode="after")
    def _limits_something(self) -> RuleTable:
        if not self.limits:
            raise ValueError(
                f"rule {self.name!r} limits nothing: write `total_cost_usd_limit`, `total_tokens_limit` or "
                "`requests_limit`"
            )
        return self

    @property
    def limits(self) -> UsageLimits:
        """The limits of each scope and window."""
        return UsageLimits(
            total_cost_usd_limit=self.total_cost_usd_limit,
            total_tokens_limit=self.total_tokens_limit,
            requests_limit=self.requests_limit,
            unknown_price=self.unknown_price,
        )

    @property
    def rule(self) -> BudgetRule:
        """The rule that runs count in."""
        found = self.match
        return BudgetRule(
            name=self.name,
            limits=self.limits,
            match=Match(
                blueprint=found.blueprint or found.pipeline, user=found.user, metadata=found.metadata
            ),
            per=self.per,
            window=Window(span=self.window, zone=self.zone),
            on_exhausted=self.on_exhausted,
        )


def _of_one_name_each(rules: tuple[RuleTable, ...]) -> tuple[RuleTable, ...]:
    names = [rule.name for rule in rules]
    repeated = [
        InitErrorDetails(
            type=PydanticCustomError(
                "value_error",
                "two rules are named '{name}': they would count in the same amounts",
                {"name": name},
            ),
            loc=(place, "name"),
            input=None,
        )
        for place, name in enumerate(names)
        if name in names[:place]
    ]
    if repeated:
        raise ValidationError.from_exception_data("rule", repeated)
    return rules


BudgetRules = Annotated[tuple[RuleTable, ...], AfterValidator(_of_one_name_each)]
"""The tables `[[budgets.rule]]`."""
