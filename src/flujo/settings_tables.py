"""The tables of flujo.toml, a strict model each: which keys there are, and what each may be."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flujo.domain.usage import UnknownPrice, UsageLimits


class Section(BaseModel):
    """A table of flujo.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(Section):
    """`[settings]`: connections to Postgres, and how runs are looked after that lost their process."""

    postgres_pool_min: int = Field(default=1, ge=0, le=1000)
    """How many connections to Postgres one process keeps."""
    postgres_pool_max: int = Field(default=10, ge=1, le=1000)
    """How many it opens at most."""
    durability: Literal["full", "relaxed"] = "full"
    """full: commits survive a power cut. relaxed: SQLite's last ones may not, nor need Postgres's."""
    lease_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds after which others may take over a run whose process gives no sign of life."""
    recovery_s: float = Field(default=5.0, gt=0, le=3600)
    """How often a runner or worker looks for deadlines that have passed and runs left behind."""
    max_recoveries: int = Field(default=3, ge=0, le=1000)
    """How often a run is taken over from a dead process without progress, before it is parked."""

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.postgres_pool_min > self.postgres_pool_max:
            raise ValueError("`postgres_pool_min` is greater than `postgres_pool_max`")
        return self


class Aros(Section):
    """`[aros]`: how structured output is asked for, and how much of it may be mended."""

    coercion_tolerant_level: int = Field(default=2, ge=0, le=2)
    """0: as it came · 1: fences and prose are stripped, light coercion · 2: broken JSON is repaired."""
    structured_output_default: Literal["openai_json", "prompt"] = "openai_json"
    """The provider's JSON mode, or the schema written into the instructions."""


class Lockfile(Section):
    """`[lockfile]`: whether a blueprint has to match flujo.lock to run."""

    enabled: bool = False
    allow_floating: tuple[str, ...] = ()
    """Patterns of models that `flujo lock verify --strict` lets pass without a release in their name."""


class Cache(Section):
    """`[cache]`: where answers of cached steps are kept beyond a run."""

    backend: Literal["memory", "state"] = "memory"
    """In memory, as long as the process lives, or in the state database, for every process that uses it."""


class Budgets(Section):
    """`[budgets]`: what every run of the project may use at most, whatever else allows it more."""

    total_cost_usd_limit: float | None = Field(default=None, gt=0)
    """US dollars, for all models together."""
    total_tokens_limit: int | None = Field(default=None, gt=0)
    """Tokens in and out."""
    requests_limit: int | None = Field(default=None, gt=0)
    """Requests to models."""
    tool_calls_limit: int | None = Field(default=None, gt=0)
    """Calls of tools that models ask for."""
    wall_time_s_limit: float | None = Field(default=None, gt=0)
    """Seconds of work; waiting for a human is none."""
    unknown_price: UnknownPrice = "refuse"
    """Under a limit on cost: `refuse` requests whose price nobody knows, or `allow` them."""

    @property
    def limits(self) -> UsageLimits:
        """The same as the limits of a run."""
        return UsageLimits(**self.model_dump())


class Blueprints(Section):
    """`[blueprints]`: where the project's blueprints are, and which code they may name."""

    paths: tuple[str, ...] = ("blueprints",)
    allow_callables: tuple[str, ...] = ()
    """Patterns of modules, for instance `skills.*`."""


class ProjectTable(Section):
    """`[project]`: the project's name, and who makes its `AppResources`."""

    name: str = ""
    resources: str | None = None
    """`module:callable`, an async context manager."""


class AgentModel(Section):
    """`[agents.NAME]`, most often as `[env.dev.agents."*"]`: another model for agents of this name."""

    model: str
