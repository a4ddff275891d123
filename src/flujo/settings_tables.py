"""The tables of flujo.toml, one strict model per table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from flujo.domain.cron import cron_problem, zone_problem
from flujo.domain.journal import Transcripts
from flujo.domain.metadata import METADATA_KEY
from flujo.domain.outbox import NoticeEvent
from flujo.domain.personal_data import ENTITIES, LOCALES, NAME_LOCALES, NAMES, Pii, Rules
from flujo.domain.providers import BUILT_IN, is_address, is_header_value
from flujo.domain.queues import QueueLimits, Rate, is_queue_name
from flujo.domain.schedule_checks import setting_problems
from flujo.domain.schedules import NAME, CatchUp, Overlap, Schedule
from flujo.domain.tool_policy import OnDenied, ToolPolicy
from flujo.domain.usage import UnknownPrice, UsageLimits
from flujo.domain.variables import is_variable, variables
from flujo.domain.wording import listed, suggest
from flujo.settings_budgets import BudgetRules

if TYPE_CHECKING:
    from flujo.domain.shared_budgets import BudgetRule

_LONGEST_NAME = 63
"""The bytes of an identifier of PostgreSQL."""


class Section(BaseModel):
    """A table of flujo.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def keys_in_use(self) -> Iterable[str]:
        """Return the keys that have a meaning in this table, for a list of settings."""
        return type(self).model_fields


class Pool(Section):
    """`[settings]`: connections to PostgreSQL, leases and recovery of runs."""

    postgres_pool_min: int = Field(default=1, ge=0, le=1000)
    """The minimum number of PostgreSQL connections of a process."""
    postgres_pool_max: int = Field(default=10, ge=1, le=1000)
    """The maximum number of PostgreSQL connections of a process."""
    postgres_schema: str = "flujo"
    """The PostgreSQL schema of Flujo's tables. A project sees only the runs in its own."""
    durability: Literal["full", "relaxed"] = "full"
    """full: commits survive a power failure. relaxed: the last commits may be lost."""
    lease_s: float = Field(default=30.0, gt=0, le=3600)
    """Seconds without renewal after which another process may claim a run."""
    recovery_s: float = Field(default=5.0, gt=0, le=3600)
    """Seconds between polls of a runner or worker for expired deadlines and orphaned runs."""
    max_recoveries: int = Field(default=3, ge=0, le=1000)
    """How often a run is recovered without progress before it is parked."""

    @field_validator("postgres_schema")
    @classmethod
    def _is_schema(cls, name: str) -> str:
        """Return a name that Postgres takes as it is: it cuts a long one, and keeps some for itself."""
        if not re.fullmatch(r"[^\W\d]\w*", name):
            raise ValueError(
                f"`postgres_schema` is {name!r}: write letters, digits and `_`, and no digit at the beginning"
            )
        if len(name.encode()) > _LONGEST_NAME:
            raise ValueError(f"`postgres_schema` is longer than {_LONGEST_NAME} bytes")
        if name.startswith("pg_") or name == "information_schema":
            raise ValueError(f"`postgres_schema` is {name!r}, a name that PostgreSQL keeps for itself")
        return name

    @model_validator(mode="after")
    def _ordered(self) -> Pool:
        if self.postgres_pool_min > self.postgres_pool_max:
            raise ValueError("`postgres_pool_min` is greater than `postgres_pool_max`")
        return self


class Aros(Section):
    """`[aros]`: how structured output is requested, and how it and the arguments of tools are repaired."""

    coercion_tolerant_level: int = Field(default=2, ge=0, le=2)
    """0: no repair · 1: strips fences and prose, light coercion · 2: also repairs broken JSON."""
    structured_output_default: Literal["openai_json", "prompt", "tool"] = "openai_json"
    """The provider's JSON mode, the schema written into the instructions, or a tool that takes the answer."""
    repaired_arguments: Literal["refuse", "ask", "allow"] = "refuse"
    """Whether a tool whose effect is not `read` is called with arguments whose broken JSON was repaired.
    ask: a human approves the call."""


class Lockfile(Section):
    """`[lockfile]`: whether a blueprint has to match flujo.lock to run."""

    enabled: bool = False
    allow_floating: tuple[str, ...] = ()
    """Patterns of models that `flujo lock verify --strict` accepts without a version."""


class Cache(Section):
    """`[cache]`: where outputs of cached steps are stored."""

    backend: Literal["memory", "state"] = "memory"
    """memory: until the process ends. state: in the database, shared by all its processes."""


class Journal(Section):
    """`[journal]`: what the journal keeps beside inputs, outputs and errors."""

    transcripts: Transcripts = "full"
    """Keep the messages to and from the model: `full` of every attempt, `last` of the last one, or `off`."""


class Governance(Section):
    """`[governance]`: the tools that may be called, and the personal data that is masked in what leaves."""

    tools: tuple[str, ...] | None = None
    """The tools that may be called, by name, `SERVER:*` or `module:callable`; all others are denied.
    Default: no list, so every tool is allowed. An empty list denies all. The variable has commas between the
    names."""
    calls: bool = False
    """Whether the callables of `call` steps must be on the list as well."""
    on_denied: OnDenied = "refuse"
    """What a denied call of a model does: the model reads a refusal, or with `fail` the step fails."""
    pii_scrub: bool = False
    """Whether mail addresses, phone numbers, cards, IBANs, national ids, IP addresses and keys are masked."""
    pii_strong: bool = False
    """Whether names of people, places and organisations are masked too, in English. Needs `pii_scrub`, and
    the extra `pii`."""
    locales: tuple[str, ...] | None = None
    """The languages: `de`, `en`, `es`, `fr`, `it`, `nl`, `pl`, `pt`. Default: all. With `pii_strong`, only
    languages with a model for names: `en`."""
    entities: tuple[str, ...] | None = None
    """The kinds that are masked: `email`, `phone`, `card`, `iban`, `national_id`, `ip`, `url_credentials`,
    `key`, and with `pii_strong` `person`, `place`, `organisation`. Default: all."""
    allow: tuple[str, ...] = ()
    """Values that are not masked, with `*` and `?`: `*@example.org`."""
    journal: Literal["values", "scrubbed"] = "values"
    """values: the database has the values of runs as they are. scrubbed: with `pii_scrub`, they are masked as
    they enter a run, which continues with the masked values."""

    requests: Literal["scrubbed", "tokenised"] = "scrubbed"
    """scrubbed: with `pii_scrub`, requests to models have `<EMAIL>`. tokenised: they have pseudonyms such as
    `<EMAIL_kdhwqzmr>`, in whose place the answer has the value again. Needs `[state] encryption` too."""

    @field_validator("locales")
    @classmethod
    def _are_locales(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _known(given, LOCALES, "locales", "known language")

    @field_validator("entities")
    @classmethod
    def _are_entities(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _known(given, (*ENTITIES, *NAMES), "entities", "kind of personal data")

    @field_validator("tools")
    @classmethod
    def _are_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if not name.strip() or name != name.strip():
                raise ValueError(f"`tools` names {name!r}, which does not name a tool")
            if "*" in name.removesuffix(":*") or name == ":*":
                raise ValueError(
                    f"`tools` names {name!r}: names are exact, except `SERVER:*` for all tools of a server"
                )
        return names

    @property
    def policy(self) -> ToolPolicy:
        """The list, as runs apply it."""
        allowed = None if self.tools is None else frozenset(self.tools)
        return ToolPolicy(allowed=allowed, calls=self.calls, on_denied=self.on_denied)

    @model_validator(mode="after")
    def _masks_what_it_stores(self) -> Governance:
        if self.journal == "scrubbed" and not self.pii_scrub:
            raise ValueError("`journal` is 'scrubbed', which needs `pii_scrub = true` or its variable")
        return self

    @model_validator(mode="after")
    def _tokenises_what_it_masks(self) -> Governance:
        if self.requests == "tokenised" and not self.pii_scrub:
            raise ValueError("`requests` is 'tokenised', which needs `pii_scrub = true` or its variable")
        return self

    @property
    def treatment(self) -> Pii | None:
        """How requests treat personal data where no step declares it: `tokenise`, or None for the masks."""
        return "tokenise" if self.requests == "tokenised" else None

    @model_validator(mode="after")
    def _finds_what_it_masks(self) -> Governance:
        chosen = [each for each in NAMES if self.entities is not None and each in self.entities]
        if not self.pii_strong:
            if chosen:
                raise ValueError(
                    f"`entities` has {chosen[0]!r}, which needs `pii_strong = true` or its variable"
                )
            return self
        if not self.pii_scrub:
            raise ValueError("`pii_strong` is true, which needs `pii_scrub = true` or its variable")
        if self.entities is not None and not chosen:
            raise ValueError(
                f"`pii_strong` is true, but `entities` has none of {listed(NAMES, 'and')}: "
                "add one, or leave it out"
            )
        if unread := [each for each in self.locales or () if each not in NAME_LOCALES]:
            raise ValueError(
                f"`locales` has {unread[0]!r}, in which no names are found; with `pii_strong`, leave it out: "
                f"names are found in {listed(NAME_LOCALES)}"
            )
        return self

    @property
    def summary(self) -> str:
        """The masked kinds and the places, in a few words."""
        if not self.pii_scrub:
            return "not masked"
        where = "in all that leaves and in requests to models; the database has the values as they are"
        if self.journal == "scrubbed":
            where = "as it enters a run, in all that leaves, and in requests to models"
        if self.requests == "tokenised":
            where = where.replace("in requests to models", "as pseudonyms in requests to models")
        names = f"; names in {listed(NAME_LOCALES)}, in no other language" if self.pii_strong else ""
        return f"{', '.join(self.rules.entities)}: masked {where}{names}"

    @property
    def rules(self) -> Rules:
        """The rules by which personal data is masked."""
        known = (*ENTITIES, *(NAMES if self.pii_strong else ()))
        return Rules(
            entities=tuple(each for each in known if self.entities is None or each in self.entities),
            locales=tuple(each for each in LOCALES if self.locales is None or each in self.locales),
            allow=self.allow,
        )


def _known(
    given: tuple[str, ...] | None, known: tuple[str, ...], key: str, what: str
) -> tuple[str, ...] | None:
    """Return the names that are given, each of which must be known; None for all of them."""
    for each in given or ():
        if each not in known:
            raise ValueError(
                f"`{key}` has {each!r}, which is not a {what}; {suggest(each, known, what='there are')}"
            )
    if given is not None and not given:
        raise ValueError(f"`{key}` is empty: leave it out for all of them, or set `pii_scrub` to false")
    return given


class State(Section):
    """`[state]`: how the database keeps runs."""

    encryption: str | None = None
    """The name of the environment variable with the keys that encrypt values in the database, as
    `flujo keys new` prints them: `ID:KEY,ID:KEY`. The first one encrypts; each one decrypts. Default: values
    are stored as they are."""
    indexed_metadata: tuple[str, ...] = Field(default=(), max_length=16)
    """Keys of runs' metadata that SQLite finds runs by without reading all of them; nested keys have dots.
    PostgreSQL indexes every key."""

    @field_validator("encryption")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # The value may be a key, so it is not repeated.
            raise ValueError(
                "`encryption` is the name of an environment variable, such as FLUJO_STATE_KEYS: "
                "the keys themselves stand in the variable"
            )
        return name

    @field_validator("indexed_metadata")
    @classmethod
    def _are_keys(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not all(METADATA_KEY.fullmatch(part) for part in name.split(".")):
                raise ValueError(
                    f"`indexed_metadata` names {name!r}: write a key like `customer` or `order.total`"
                )
        return names


class Budgets(Section):
    """`[budgets]`: upper limits for every run of the project."""

    total_cost_usd_limit: float | None = Field(default=None, gt=0)
    """US dollars, for all models together."""
    total_tokens_limit: int | None = Field(default=None, gt=0)
    """Tokens in and out."""
    requests_limit: int | None = Field(default=None, gt=0)
    """Requests to models."""
    tool_calls_limit: int | None = Field(default=None, gt=0)
    """Tool calls by models."""
    wall_time_s_limit: float | None = Field(default=None, gt=0)
    """Seconds of work; waiting for a human does not count."""
    unknown_price: UnknownPrice = "refuse"
    """With a cost limit: `refuse` or `allow` requests to models with unknown pricing."""
    rule: BudgetRules = ()
    """`[[budgets.rule]]`: budgets that several runs share; see below."""

    @property
    def limits(self) -> UsageLimits:
        """The budget as limits of a run."""
        return UsageLimits(**self.model_dump(exclude={"rule"}))

    @property
    def rules(self) -> tuple[BudgetRule, ...]:
        """The budgets that several runs share."""
        return tuple(each.rule for each in self.rule)


class Blueprints(Section):
    """`[blueprints]`: the folders of blueprints, and the callables that they may use."""

    paths: tuple[str, ...] = ("blueprints",)
    allow_callables: tuple[str, ...] = ()
    """Patterns of modules, for instance `skills.*`."""


class ProjectTable(Section):
    """`[project]`: the project's name and resources."""

    name: str = ""
    resources: str | None = None
    """`module:callable`: an async context manager that yields the `AppResources`."""
    file_folders: tuple[str, ...] = ()
    """Folders outside the project whose files steps may send to models."""


class AgentModel(Section):
    """`[agents.NAME]`, often `[env.dev.agents."*"]`: overrides the model of agents with this name."""

    model: str


class McpServer(Section):
    """`[mcp.NAME]`: an MCP server whose tools agents may call, as a process or at a URL.

    `${NAME}` in its texts is filled in when the server is started, so other commands need no secrets.
    """

    command: str | None = Field(default=None, min_length=1)
    """The program of a server that speaks over its standard input and output."""
    args: tuple[str, ...] = ()
    """The arguments of the program."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Environment variables of the program, beside `HOME`, `PATH` and others that hold no secrets."""
    url: str | None = None
    """The address of a server that speaks streamable HTTP."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """HTTP headers of every request to the address."""
    timeout: float = Field(default=30.0, gt=0, le=3600)
    """Seconds for the start of the server, and for each call of a tool."""

    @model_validator(mode="after")
    def _is_one_transport(self) -> McpServer:
        if (self.command is None) == (self.url is None):
            raise ValueError("an MCP server has either a `command` or a `url`")
        if self.command is None and (self.args or self.env):
            raise ValueError("`args` and `env` belong to a `command`; a server with a `url` takes `headers`")
        if self.url is None and self.headers:
            raise ValueError("`headers` belong to a `url`; a server with a `command` takes `env`")
        if self.url is not None and not re.match(r"https?://.|\$\{", self.url):
            raise ValueError(f"`url` is {self.url!r}, not an address that begins with http:// or https://")
        return self

    @property
    def address(self) -> str:
        """The command with its arguments, or the URL, for display."""
        return self.url if self.url is not None else " ".join([self.command or "", *self.args])


_RATE = re.compile(r"(\d{1,9})\s*/\s*(s|min|h|d)")
_SPANS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


class QueueTable(Section):
    """`[queues.NAME]`: what all workers of a queue execute together."""

    concurrency: int | None = Field(default=None, ge=1, strict=True)
    """How many of its runs are executed at once; a paused or waiting run does not count."""
    rate: str | None = None
    """How many of its runs start within any span of time: `100/min`, `5/s`, `1000/h` or `20000/d`."""
    per_key: str | None = Field(default=None, min_length=1)
    """An expression over `input`, for instance `input.customer`. Runs with the same value are executed one
    after another."""
    max_retries: int = Field(default=10, ge=0, le=1000, strict=True)
    """How often a run that could not be started is tried again, with growing delays, before it is parked."""

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, text: str | None) -> str | None:
        if text is not None and (not (found := _RATE.fullmatch(text)) or int(found[1]) == 0):
            raise ValueError(
                f"`rate` is {text!r}: write for instance `100/min`, `5/s`, `1000/h` or `20000/d`"
            )
        return text

    @property
    def limits(self) -> QueueLimits:
        """The limits, which workers apply."""
        found = None if self.rate is None else _RATE.fullmatch(self.rate)
        rate = None if found is None else Rate(int(found[1]), _SPANS[found[2]])
        return QueueLimits(concurrency=self.concurrency, rate=rate, one_per_key=self.per_key is not None)


def _queue_name(name: str) -> str:
    if not is_queue_name(name):
        raise ValueError(f"{name!r} cannot name a queue: write 1 to 63 letters, digits, `-`, `_` and `.`")
    return name


Queues = Mapping[Annotated[str, AfterValidator(_queue_name)], QueueTable]
"""The tables `[queues.NAME]`."""


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _age(given: Any) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", given) if isinstance(given, str) else None
    if found is None or not float(found[1]):
        raise ValueError(f"{given!r} is not an age with its unit: write 30d, 12h, 90m or 45s")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[float, BeforeValidator(_age)]
"""Seconds, written with a unit."""
Age = Annotated[float | None, BeforeValidator(_age)]
"""Seconds, written with a unit. None is never written: it stands for a status that is kept."""


class Retention(Section):
    """`[retention]`: after which time without a change workers delete runs with all that belongs to them.

    A status without an age is kept. Runs that wait or are executed are never deleted.
    """

    completed: Age = None
    """For instance `30d`."""
    failed: Age = None
    """They can be retried until then."""
    cancelled: Age = None
    parked: Age = None
    interrupted: Age = None
    """They can be resumed until then."""

    @property
    def ages(self) -> dict[str, float]:
        """The statuses that are deleted, each with its age in seconds."""
        given: dict[str, float | None] = self.model_dump()
        return {status: age for status, age in given.items() if age is not None}


class NotifyTable(Section):
    """Where messages about runs go: a webhook, or a callable of the project.

    `${NAME}` in its texts is filled in when a message is sent, so other commands need no secrets.
    """

    url: str | None = None
    """The address of a webhook."""
    secret: str | None = None
    """The variable that holds the secret of the webhook's signatures: `${NAME}`, with a value `whsec_…`."""
    callable: str | None = None
    """`module:callable` that gets each message as a dictionary."""
    on: tuple[NoticeEvent, ...] = (
        NoticeEvent.PAUSED,
        NoticeEvent.COMPLETED,
        NoticeEvent.FAILED,
        NoticeEvent.CANCELLED,
        NoticeEvent.PARKED,
    )
    """The events: `paused`, `waiting`, `completed`, `failed`, `cancelled`, `parked`."""
    blueprints: tuple[str, ...] = ("*",)
    """Patterns of blueprints and pipelines. `[]`: only those that name the target in `notify`."""

    @model_validator(mode="after")
    def _is_one_target(self) -> NotifyTable:
        if (self.url is None) == (self.callable is None):
            raise ValueError("a target has either a `url` or a `callable`")
        if (self.url is None) != (self.secret is None):
            raise ValueError("a `url` and its `secret` belong together: every webhook is signed")
        if self.url is not None and not variables(self.url) and not is_address(self.url):
            raise ValueError(
                "`url` is not an address `http://…` or `https://…` without a password and a query"
            )
        if self.secret is not None and not is_variable(self.secret):
            raise ValueError(
                "`secret` names the variable that holds it, `${NAME}`, so that it is not in this file"
            )
        return self


class TelemetryTable(Section):
    """`[telemetry]`: traces and metrics for OpenTelemetry. The variables `OTEL_…` come before these settings.

    `${NAME}` in `headers` is filled in when the first run begins, so other commands need no secrets.
    """

    enabled: bool = True
    """Whether anything is sent, also where the variables name a collector."""
    endpoint: str | None = None
    """The address of a collector that speaks OTLP over HTTP, without `/v1/traces`: `http://localhost:4318`."""
    headers: Mapping[str, str] = Field(default_factory=dict)
    """HTTP headers of each request to it."""
    service_name: str = Field(default="flujo", min_length=1)
    """The name of this program in the tracing tool."""
    content: bool = False
    """Whether prompts, answers, inputs, outputs and messages of errors are sent. Secrets are masked."""

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is not None and not is_address(url):
            raise ValueError(
                "`endpoint` is not an address: write `http://…` or `https://…`, without a password"
            )
        return url


_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OF_THE_CLIENT = ("connection", "content-length", "content-type", "host", "transfer-encoding")
"""Headers that the client of a provider sets for each request."""


def _provider_name(name: str) -> str:
    if name == "local":
        raise ValueError("`local` names the models of this machine: choose another name for the provider")
    if not _PROVIDER.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a provider: write letters, digits, `-`, `_` and `.`, for instance `vllm`"
        )
    return name


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name) or name.lower() in _OF_THE_CLIENT:
        raise ValueError(f"{name!r} cannot be set as a header of requests")
    return name


def _header_value(value: str) -> str:
    if not is_header_value(value):
        raise ValueError("the value of a header has printable ASCII characters only")
    return value


class ProviderTable(Section):
    """A server for models that are written `NAME:model`, and its limits within a process."""

    kind: Literal["openai", "openai-responses", "anthropic", "google"] | None = None
    """The API that it speaks. Default: `openai` (chat completions), or that of the built-in provider NAME."""
    base_url: str | None = None
    """Its address, usually with `/v1` at the end. Default: that of the built-in provider."""
    key: str | None = None
    """The variable that holds its key: `${NAME}`. Without it, an address of your own gets no key."""
    headers: Mapping[
        Annotated[str, AfterValidator(_header_name)], Annotated[str, AfterValidator(_header_value)]
    ] = Field(default_factory=dict)
    """Headers of every request. `${NAME}` reads a variable, whose value counts as a secret."""
    timeout: float | None = Field(default=None, gt=0, le=86400, strict=True, allow_inf_nan=False)
    """The maximum silence of the server in seconds."""
    max_concurrency: int | None = Field(default=None, ge=1, strict=True)
    """How many requests a process sends at the same time; others wait in order."""
    rpm: int | None = Field(default=None, ge=1, strict=True)
    """How many requests all processes of a database send in any 60 seconds."""
    tpm: int | None = Field(default=None, ge=1, strict=True)
    """How many tokens the requests of all processes of a database may use in any 60 seconds."""

    def api(self, name: str) -> str:
        """Return the API that the provider `name` speaks, by pydantic-ai's name."""
        if self.kind is None:
            return name if name in BUILT_IN else "openai-chat"
        return "openai-chat" if self.kind == "openai" else self.kind

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is not None and not variables(url) and not is_address(url):
            raise ValueError(
                "`base_url` is the address of a server, `http://…` or `https://…`, without a password: a key "
                "belongs into `key`"
            )
        return url

    @field_validator("key")
    @classmethod
    def _is_variable(cls, key: str | None) -> str | None:
        if key is not None and not is_variable(key):
            raise ValueError(
                "`key` names the variable that holds the key, `${NAME}`, so that no key is in this file; a "
                "server that needs no key has no `key`"
            )
        return key


def _reachable(tables: Mapping[str, ProviderTable]) -> Mapping[str, ProviderTable]:
    """Require an address of each provider that is not built in."""
    lacking = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "[providers.{name}] has no `base_url`", {"name": name}),
            loc=(name,),
            input=None,
        )
        for name, table in tables.items()
        if table.base_url is None and table.kind is None and name not in BUILT_IN
    ]
    if lacking:
        raise ValidationError.from_exception_data("providers", lacking)
    return tables


Providers = Annotated[
    Mapping[Annotated[str, AfterValidator(_provider_name)], ProviderTable], AfterValidator(_reachable)
]
"""The tables `[providers.NAME]`."""


def _priced_model(name: str) -> str:
    provider, colon, model = name.partition(":")
    if not (provider and colon and model) or "*" in name[:-1]:
        raise ValueError(
            f"{name!r} cannot have a price: write `provider:model`, or `provider:*` and `provider:name*` for "
            "several models"
        )
    return name


Dollars = Annotated[float, Field(ge=0, le=1_000_000, strict=True, allow_inf_nan=False)]


class PriceTable(Section):
    """What a model costs, in US dollars for a million tokens.

    A name that ends with `*` sets the price of all models whose names begin with the rest; the longest one
    that fits a model counts.
    """

    input_mtok: Dollars
    """A million tokens of input."""
    output_mtok: Dollars
    """A million tokens of output."""
    cached_input_mtok: Dollars | None = None
    """A million tokens of input that the provider read from its cache. Default: `input_mtok`."""
    cache_write_mtok: Dollars | None = None
    """A million tokens of input that the provider wrote to its cache. Default: `input_mtok`."""


Prices = Mapping[Annotated[str, AfterValidator(_priced_model)], PriceTable]
"""The tables `[prices."provider:model"]`."""


def _schedule_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a schedule: write up to 100 letters, digits, `_` and `-`, a letter first"
        )
    return name


class ScheduleTable(Section):
    """`[schedules.NAME]`: when workers run a blueprint, and with what."""

    blueprint: str
    """The blueprint, by its name or its path in the project."""
    cron: str
    """Minute, hour, day of month, month, day of week: `30 2 * * MON-FRI`."""
    timezone: str = "UTC"
    """The time zone of the cron line: a name of the IANA database."""
    catch_up: CatchUp = "last"
    """Which of the times that passed while no worker ran are fired: none, last, or all up to 100."""
    overlap: Overlap = "skip"
    """What happens at a time when an earlier run of the schedule has not ended: skip, queue or allow."""
    jitter: float = Field(default=0.0, ge=0, le=86400)
    """How many seconds a run is delayed at most. The delay of a time is always the same."""
    input: Any = None
    """The input of the runs."""
    context: Mapping[str, Any] = Field(default_factory=dict)
    """The fields that the context of the runs starts with."""
    queue: str | None = Field(default=None, min_length=1)
    """The queue of the runs. Default: the worker that fires a run executes it."""
    priority: int = 0
    """The priority of the runs in their queue, from -1,000,000 to 1,000,000."""
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    """Metadata of the runs, beside `schedule` with the name of the schedule."""

    @field_validator("cron")
    @classmethod
    def _fires(cls, cron: str) -> str:
        if wrong := cron_problem(cron):
            raise ValueError(f"{wrong[0]}: {wrong[1]}")
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, timezone: str) -> str:
        if wrong := zone_problem(timezone):
            raise ValueError(f"{wrong[0]}: {wrong[1]}")
        return timezone

    @model_validator(mode="after")
    def _is_consistent(self) -> ScheduleTable:
        for _, _, (message, hint) in setting_problems(self.named("schedule"), "schedule"):
            raise ValueError(f"{message}: {hint}")
        return self

    def named(self, name: str) -> Schedule:
        """Return the schedule of this table."""
        keys = self.model_dump(exclude={"blueprint", "jitter"})
        return Schedule(name=name, jitter_s=self.jitter, **keys)


ScheduleTables = Mapping[Annotated[str, AfterValidator(_schedule_name)], ScheduleTable]
"""The tables `[schedules.NAME]`."""


class EvaluatorTable(Section):
    """`[evaluation.evaluators.NAME]`: what scores outputs: one of `judge`, `call` and `expr`."""

    judge: str | None = Field(default=None, min_length=1)
    """What a good output is, in words for a model that judges it."""
    model: str | None = None
    """The model that judges. Default: `model` of [evaluation]."""
    model_settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of that model. Default: an answer of at most 1000 tokens."""
    call: str | None = None
    """`module:callable`: gets `input`, `output`, `expected` and `metadata` by the names of its parameters."""
    expr: str | None = Field(default=None, min_length=1)
    """An expression over `input`, `output`, `expected` and `metadata`: `size(output) < 400`."""
    blueprints: tuple[str, ...] = ("*",)
    """Patterns of the blueprints and pipelines whose runs it scores. `[]`: only those that name it in
    `evaluate`."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> EvaluatorTable:
        if sum(each is not None for each in (self.judge, self.call, self.expr)) != 1:
            raise ValueError("an evaluator has one of `judge`, `call` and `expr`")
        if self.judge is None and (self.model is not None or self.model_settings):
            raise ValueError("`model` and `model_settings` belong to a `judge`")
        return self


def _evaluator_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise ValueError(f"{name!r} cannot name an evaluator: write letters, digits and `_`, no digit first")
    return name


class EvaluationTable(Section):
    """`[evaluation]`: which outputs of live traffic are scored, and what one evaluation may take and cost."""

    enabled: bool = False
    """Whether outputs are scored after the answer (shadow evaluation)."""
    sink: Literal["database", "log"] = "database"
    """Where scores go: the table `evaluations` of the state database, or the log `flujo.evaluation`."""
    sample_rate: float = Field(default=1.0, ge=0, le=1)
    """The share of the runs that is scored: 0.1 is every tenth. The id of a run decides."""
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds for one evaluation."""
    model: str | None = None
    """The model of judges that name none: `provider:model`."""
    budget: float | None = Field(default=None, gt=0)
    """US dollars that one evaluation may cost at most."""
    evaluators: Mapping[Annotated[str, AfterValidator(_evaluator_name)], EvaluatorTable] = Field(
        default_factory=dict
    )
    """`[evaluation.evaluators.NAME]`; see below."""
