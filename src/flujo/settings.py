"""What the project is set to: the environment over flujo.toml over defaults, each value with its origin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_origin

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flujo.domain.prices import Price
from flujo.domain.providers import Allowed, NamedProvider
from flujo.domain.variables import variables
from flujo.domain.wording import nearest, suggest
from flujo.exceptions import KeyRingError, SettingsError
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.governance.personal_data.models import require_names
from flujo.governance.redactor import MASK, passwords
from flujo.governance.sink import GATE
from flujo.settings_budgets import MatchTable, RuleTable
from flujo.settings_executors import Executors, ExecutorTable
from flujo.settings_serve import HookTable, ProxyTable, ServeTable, UserTable
from flujo.settings_tables import (
    AgentModel,
    Aros,
    Blueprints,
    Budgets,
    Cache,
    EvaluationTable,
    EvaluatorTable,
    Governance,
    Journal,
    Lockfile,
    McpServer,
    NotifyTable,
    Pool,
    Prices,
    PriceTable,
    ProjectTable,
    Providers,
    ProviderTable,
    Queues,
    QueueTable,
    Retention,
    ScheduleTable,
    ScheduleTables,
    Section,
    State,
    TelemetryTable,
)
from flujo.toml_file import Key, TomlFile, leaves, text_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

CONFIG_FILE = "flujo.toml"

ENVIRONMENT: Mapping[str, str] = {
    "FLUJO_STATE_URI": "state_uri",
    "FLUJO_STRICT_DSL": "strict_dsl",
    "FLUJO_CACHE_DIR": "cache_dir",
    "FLUJO_SHADOW_EVAL_ENABLED": "evaluation.enabled",
    "FLUJO_SHADOW_EVAL_SINK": "evaluation.sink",
    "FLUJO_GOVERNANCE_TOOL_ALLOWLIST": "governance.tools",
    "FLUJO_GOVERNANCE_PII_SCRUB": "governance.pii_scrub",
    "FLUJO_GOVERNANCE_PII_STRONG": "governance.pii_strong",
}
"""Which environment variables are settings, and of which key; one inside a table has a dot."""

ENV_VARIABLE = "FLUJO_ENV"
"""Chooses the environment, where `--env` does not."""

TRUST_VARIABLE = "FLUJO_TRUSTED_PROJECTS"
"""Names projects of other users that are trusted: paths with `:` between them, or `*`."""

KEYS_VARIABLE = "FLUJO_STATE_KEYS"
"""Where the pages of the documentation keep keys; `[state] encryption` may name another variable."""

LOG_VARIABLE = "FLUJO_LOG"
"""Sets the levels of the log of a command: `info`, or `info,flujo.engine=debug`."""

_TOOLS = "governance.tools"
"""The key of the allow-list of tools."""

_RULES = ("budgets", "rule")
"""The key of the tables `[[budgets.rule]]`."""

_KEY_OF_A_PROVIDER = "_API_KEY"
_LIKE_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "PASSWORD")
"""Suffixes of variables whose values are probably secrets."""
_HOLD_SECRETS = (*_LIKE_SECRETS, "AUTHORIZATION", "COOKIE", "TOKEN", "SECRET")
"""Suffixes of keys of an MCP server's `env` and `headers` whose values are secrets."""


class Settings(BaseSettings):
    """Every setting, frozen. `origin(key)` says where a value comes from."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    state_uri: str = "sqlite:///.flujo/state.db"
    """The database: `sqlite:///path` (relative to the project) or `postgresql://…`."""
    strict_dsl: bool = False
    """Whether blueprint warnings are errors."""
    cache_dir: Path | None = None
    """The folder for downloaded models; default: `flujo` in the user's cache."""
    settings: Pool = Pool()
    aros: Aros = Aros()
    lockfile: Lockfile = Lockfile()
    cache: Cache = Cache()
    journal: Journal = Journal()
    governance: Governance = Governance()
    state: State = State()
    retention: Retention = Retention()
    telemetry: TelemetryTable = TelemetryTable()
    blueprints: Blueprints = Blueprints()
    project: ProjectTable = ProjectTable()
    state_providers: Mapping[str, str] = Field(default_factory=dict)
    """Storage for `ContextReference` values: id → `file:PATH` or a bucket's URL."""
    budgets: Budgets = Budgets()
    agents: Mapping[str, AgentModel] = Field(default_factory=dict)
    """`[agents.NAME]`: the model of an agent in this project; `*` stands for all other agents."""
    mcp: Mapping[str, McpServer] = Field(default_factory=dict)
    """`[mcp.NAME]`: MCP servers by name; their texts keep each `${NAME}` until `mcp_server` fills it in."""
    providers: Providers = Field(default_factory=dict)
    """`[providers.NAME]`: servers for models that are written `NAME:model`; see below."""
    prices: Prices = Field(default_factory=dict)
    """`[prices]`: what models cost, by `provider:model`; see below."""
    queues: Queues = Field(default_factory=dict)
    """`[queues.NAME]`: queues for workers, besides `default`; see below."""
    executors: Executors = Field(default_factory=dict)
    """`[executors.NAME]`: where steps that name one execute their callables; see below."""
    notify: Mapping[str, NotifyTable] = Field(default_factory=dict)
    """`[notify.NAME]`: the targets of messages about runs; see below."""
    schedules: ScheduleTables = Field(default_factory=dict)
    """`[schedules.NAME]`: when workers run blueprints; see below."""
    evaluation: EvaluationTable = EvaluationTable()
    serve: ServeTable = ServeTable()

    _file: TomlFile = PrivateAttr(default_factory=TomlFile)
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - reads too many variables
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - reads too many variables
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - reads too many variables
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the two sources: the environment, then flujo.toml (passed by `load`)."""
        return (_Environment(settings_cls), init_settings)

    @field_validator("cache_dir")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else None

    @classmethod
    def read(cls, file: TomlFile) -> Self:
        """Return the settings from a file and the environment, with the origin of each value.

        Raises:
            SettingsError: a key is unknown, or a value does not fit.
        """
        try:
            read = cls(**file.data)
        except ValidationError as error:
            raise _explained(error.errors(include_url=False, include_input=False), file) from None
        read._file = file
        read._origins.update(_origins(file))
        read._written.update({".".join(key): value for key, value in file.with_variables().items()})
        return read

    @property
    def models(self) -> dict[str, str]:
        """Agent → its model in this project; `*` stands for all other agents."""
        return {name: agent.model for name, agent in self.agents.items()}

    def require_mcp(self, name: str) -> None:
        """Check that `[mcp.NAME]` exists.

        Raises:
            SettingsError: no server has this name.
        """
        if name not in self.mcp:
            raise SettingsError(
                f"there is no [mcp.{name}] in {self._file.path or CONFIG_FILE}",
                hint=suggest(name, self.mcp, what="there are", cutoff=0.6) or f"write a table [mcp.{name}]",
                server=name,
            )

    def mcp_place(self, name: str) -> str:
        """Return the file and line of the table of an MCP server."""
        return _source(("mcp", name), self._file)

    def mcp_server(self, name: str) -> McpServer:
        """Return an MCP server with its variables filled in; the gate knows its secrets from then on.

        Raises:
            SettingsError: no server has this name, or it needs a variable that is not set; with the line.
        """
        self.require_mcp(name)
        known = environment()
        try:
            server = McpServer(**self._file.filled_at(("mcp", name), known))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise _explained(
                [{**one, "loc": ("mcp", name, *one["loc"])} for one in found], self._file
            ) from None
        written = self.mcp[name]
        texts = [("url", written.url or ""), *(("args", text) for text in written.args)]
        for key, text in (*texts, *written.env.items(), *written.headers.items()):
            _guard_text(text, f"`{key}` of [mcp.{name}]", key, known)
        GATE.know(passwords(server.url or ""), of=f"the password in `mcp.{name}.url`")
        return server

    def require_targets(self, names: Iterable[str]) -> None:
        """Check that each `[notify.NAME]` exists.

        Raises:
            SettingsError: one does not.
        """
        for name in names:
            if name not in self.notify:
                raise SettingsError(
                    f"there is no [notify.{name}] in {self._file.path or CONFIG_FILE}",
                    hint=suggest(name, self.notify, what="there are", cutoff=0.6)
                    or f"write a table [notify.{name}]",
                    target=name,
                )

    def webhook(self, name: str) -> tuple[str, str]:
        """Return the address and the secret of a target of messages, with their variables filled in.

        The gate knows the secrets in them from then on.

        Raises:
            SettingsError: it needs a variable that is not set; with the line.
        """
        known = environment()
        filled = self._file.filled_at(("notify", name), known)
        named = variables(self.notify[name].url or "")
        GATE.know([filled["secret"], *(known[each] for each in named)], of=f"a variable of [notify.{name}]")
        return filled["url"], filled["secret"]

    def hook_secret(self, name: str) -> str:
        """Return the secret of an incoming webhook, which the gate knows from then on.

        Raises:
            SettingsError: the variable is not set; with the line.
        """
        secret: str = self._file.filled_at(("serve", "hooks", name, "secret"), environment())
        GATE.know([secret], of=f"a variable of [serve.hooks.{name}]")
        return secret

    def telemetry_headers(self) -> dict[str, str]:
        """Return the headers for the collector, with their variables filled in; the gate knows the values.

        Raises:
            SettingsError: they need a variable that is not set; with the line.
        """
        if not self.telemetry.headers:
            return {}
        filled: dict[str, str] = self._file.filled_at(("telemetry", "headers"), environment())
        for name, value in self.telemetry.headers.items():
            _guard_text(value, f"header `{name}` of [telemetry]", name, environment())
        return filled

    def key_ring(self) -> KeyRing:
        """Return the keys that encrypt values in the database; the gate knows them from then on.

        Raises:
            KeyRingError: the variable of `[state] encryption` is not set, or has no usable keys.
        """
        variable = self.state.encryption
        if variable is None:
            return NO_KEYS
        text = environment().get(variable, "")
        if not text:
            raise KeyRingError(
                f"{variable} is not set, and {self.origin('state.encryption')} names it for the keys of the "
                "database",
                hint="set it to the keys that the database is encrypted with; `flujo keys new` prints one",
                variable=variable,
            )
        keys = KeyRing.parse(text, variable)
        GATE.know(keys.shown_keys, of=variable)
        return keys

    @property
    def named_providers(self) -> dict[str, NamedProvider]:
        """The providers of `[providers.NAME]`, by name."""
        return {
            name: NamedProvider(
                name=name,
                kind=table.api(name),
                base_url=table.base_url,
                key=table.key,
                headers=table.headers,
                timeout_s=table.timeout,
                allowed=Allowed(table.max_concurrency, table.rpm, table.tpm),
                places={
                    key.removeprefix(f"providers.{name}."): place
                    for key, place in self._origins.items()
                    if key.startswith(f"providers.{name}.")
                },
            )
            for name, table in self.providers.items()
        }

    @property
    def own_prices(self) -> dict[str, Price]:
        """The prices of `[prices]`, by the names of models."""
        return {name: Price(**table.model_dump()) for name, table in self.prices.items()}

    @property
    def cache_home(self) -> Path:
        """The folder for downloaded models: `cache_dir`, or `flujo` in the user's cache."""
        return self.cache_dir or default_cache_dir()

    def line(self, *key: str) -> int:
        """Return the line of flujo.toml that sets a key or opens its table; 1 when it is not known."""
        return self._file.line(key) or 1

    def origin(self, key: str) -> str:
        """Return where the value of `key` (dotted) comes from: a variable, a file and line, or `default`."""
        return self._origins.get(key, "default")

    def listed(self) -> Iterator[tuple[str, Any, str]]:
        """Yield each setting's dotted key, its value without secrets, and its origin.

        A value with `${NAME}` is shown as written, because the variable may hold a secret.
        """
        for key, value, origin in self._values():
            is_written = key in self._written and origin not in ENVIRONMENT
            yield key, self._written[key] if is_written else value, origin

    def _values(self) -> Iterator[tuple[str, Any, str]]:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Mapping):  # the names in it are the user's
                for entry in value:
                    yield from self._values_at(f"{name}.{entry}", value[entry])
            else:
                yield from self._values_at(name, value)

    def _values_at(self, key: str, value: Any) -> Iterator[tuple[str, Any, str]]:
        if key == ".".join(_RULES):
            for number, rule in enumerate(value):
                line = self._file.line((*_RULES, str(number)))
                origin = f"{CONFIG_FILE}:{line}" if line else self.origin(key)
                for field, given in rule.model_dump(exclude_unset=True, exclude={"name"}).items():
                    yield f"{key}.{rule.name}.{field}", given, origin
            return
        if isinstance(value, Section):
            for name in value.keys_in_use():
                yield from self._values_at(f"{key}.{name}", getattr(value, name))
        elif key in ("evaluation.evaluators", "serve.users", "serve.hooks"):
            for name, table in value.items():
                yield from self._values_at(f"{key}.{name}", table)
        elif isinstance(value, Mapping) and not key.startswith(("schedules.", "evaluation.", "serve.")):
            # headers or environment variables, which often are secrets
            for name, text in value.items():
                place = f"{key}.{name}"
                yield place, text if variables(text) else MASK, self.origin(place)
        else:
            is_hidden = key.startswith("serve.users.") and key.endswith(".password_hash") and value
            yield (
                key,
                MASK if is_hidden else GATE.text(value) if isinstance(value, str) else value,
                self.origin(key),
            )


def _guard_text(text: str, where: str, key: str, known: Mapping[str, str]) -> None:
    """Register the secrets in a text of flujo.toml with the redaction gate.

    Args:
        text: the text as written, with variables.
        where: its place, for errors.
        key: its key; one like `API_KEY` or `Authorization` holds a secret.
        known: the variables.
    """
    names = variables(text)
    values = [known[name] for name in names] or [text, text.rpartition(" ")[2]]
    if any(name.upper().replace("-", "_").endswith(_HOLD_SECRETS) for name in (key, *names)):
        GATE.know(values, of=where)
    elif names:
        GATE.suspect(values)


def _is_given(variable: str, variables: Mapping[str, str]) -> bool:
    """Return whether a variable sets its key; an empty one does only for the list of tools."""
    return bool(variables.get(variable)) or (ENVIRONMENT[variable] == _TOOLS and variable in variables)


class _Environment(PydanticBaseSettingsSource):
    """The variables that are settings. Other `FLUJO_` variables are ignored."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base class requires it
        for variable, key in ENVIRONMENT.items():
            if key == field_name:
                return environment().get(variable) or None, key, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        variables = environment()
        given: dict[str, Any] = {}
        for variable, key in ENVIRONMENT.items():
            if not _is_given(variable, variables):
                continue
            value: Any = variables[variable]
            if key == _TOOLS:  # an empty text is an empty list, which denies all
                value = [each.strip() for each in value.split(",") if each.strip()]
            table, dot, name = key.rpartition(".")
            (given.setdefault(table, {}) if dot else given)[name] = value
        return given


def environment() -> Mapping[str, str]:
    """Return a copy of the environment; only this function reads it."""
    raw = _raw_environment()
    return dict(os.environ if raw is None else _decoded(tuple(raw.items())))  # noqa: TID251 - the only reader


@lru_cache(maxsize=2)
def _decoded(variables: tuple[tuple[Any, Any], ...]) -> Mapping[str, str]:
    """Return variables as text. They are kept, because `os.environ` decodes each of them at each look."""
    return {os.fsdecode(name): os.fsdecode(value) for name, value in variables}


def guard_environment() -> None:
    """Register API keys, probable secrets and passwords in URLs with the redaction gate.

    Each run calls this, because code of a step may have set variables. It returns at once
    when none has changed.
    """
    raw = _raw_environment()
    if raw is not None and raw == GATE.environment:
        return
    variables = environment()
    for name, value in variables.items():
        if name.endswith(_KEY_OF_A_PROVIDER):
            GATE.know([value.strip()], of=name)
    GATE.suspect(value.strip() for name, value in variables.items() if name.endswith(_LIKE_SECRETS))
    GATE.suspect(each for value in variables.values() if "://" in value for each in passwords(value))
    GATE.environment = raw


def _raw_environment() -> Mapping[Any, Any] | None:
    """Return a copy of the undecoded environment; None when Python does not keep one.

    `os.environ` checks and decodes each variable in Python, which takes a tenth of a short run.
    """
    data = getattr(os.environ, "_data", None)  # noqa: TID251 - of the only reader
    return dict(data) if isinstance(data, dict) else None


def load(config_file: Path | None = None, *, chosen: str = "") -> Settings:
    """Return the settings of a project.

    Args:
        config_file: its flujo.toml, or None for a folder without one.
        chosen: the environment whose table `[env.NAME]` overrides the rest; default: `FLUJO_ENV`, or none.

    Raises:
        SettingsError: an unknown key, an unusable value, or text that is not TOML; with file and
            line if known.
        NamesUnavailable: names are masked, and the extra `pii` is not installed.
    """
    guard_environment()
    variables = environment()
    text = text_of(config_file) if config_file else ""
    # Other variables change nothing: a test runner, for example, names the running test in one.
    read = tuple((name, value) for name, value in variables.items() if name in ENVIRONMENT or name in text)
    settings = _resolved(config_file, text, chosen_environment(chosen), read)
    servers = {f"mcp.{name}.url": server.url or "" for name, server in settings.mcp.items()}
    urls = {"state_uri": settings.state_uri, **settings.state_providers, **servers}
    for key, url in urls.items():
        GATE.know(passwords(url), of=f"the password in `{key}`")
    if settings.governance.pii_strong:
        require_names(settings.origin("governance.pii_strong"))
    GATE.personal_rules = settings.governance.rules
    if settings.governance.pii_scrub:
        GATE.hide_personal_data(GATE.personal_rules)
        GATE.masks_values = GATE.masks_values or settings.governance.journal == "scrubbed"
    return settings


@lru_cache(maxsize=8)
def _resolved(
    config_file: Path | None, text: str, name: str, variables: tuple[tuple[str, str], ...]
) -> Settings:
    """Return the settings that a text and an environment make: the same object for the same two.

    Each runner of a process loads the settings of its project. They cost as much as several steps.
    """
    file = TomlFile.of(config_file, text) if config_file else TomlFile()
    _check_environments(file)
    layered = _layered(file, name) if name else file
    return Settings.read(layered.without("env").filled(dict(variables)))


def chosen_environment(chosen: str = "") -> str:
    """Return the name of the environment: `chosen`, else `FLUJO_ENV`, else empty."""
    return chosen or environment().get(ENV_VARIABLE, "")


def locked_settings(config_file: Path | None = None) -> dict[str, Settings]:
    """Return the locked settings of each environment by name; "" stands for no environment.

    Only the tables that change what runs do are read, because the other tables may need variables that
    only production has.

    Raises:
        SettingsError: as `load`.
    """
    file = TomlFile.read(config_file) if config_file else TomlFile()
    _check_environments(file)
    layers = {"": file} | {name: file.layered(("env", name)) for name in file.data.get("env", {})}
    return {
        name: Settings.read(
            layer.only("agents", "aros", "blueprints", "budgets", "evaluation", "prices", "providers").filled(
                environment()
            )
        )
        for name, layer in layers.items()
    }


def _check(file: TomlFile) -> None:
    """Check an environment that is not selected; values with variables are not checked."""
    try:
        Settings(**file.data)
    except ValidationError as error:
        variable = file.with_variables()
        found = error.errors(include_url=False, include_input=False)
        if wrong := [one for one in found if _key(one) not in variable]:
            raise _explained(wrong, file) from None


def _check_environments(file: TomlFile) -> None:
    """Check every `[env.NAME]`, so that an error in `prod` is found in `dev`."""
    environments = file.data.get("env", {})
    if not isinstance(environments, dict) or not all(isinstance(e, dict) for e in environments.values()):
        raise SettingsError(
            f"{file.place(('env',))}: an environment is a table: [env.NAME]", file=str(file.path)
        )
    for name, table in environments.items():
        if "env" in table:
            raise SettingsError(f"{file.place(('env', name))}: [env.{name}] contains another [env]")
        _check(file.layered(("env", name)).without("env"))


def _layered(file: TomlFile, name: str) -> TomlFile:
    known = file.data.get("env", {})
    if name not in known:
        where = file.path or "this folder, which has no flujo.toml"
        raise SettingsError(
            f"there is no [env.{name}] in {where}",
            hint=suggest(name, known, what="there are", cutoff=0.6) or f"write a table [env.{name}]",
            environment=name,
        )
    return file.layered(("env", name))


def default_cache_dir() -> Path:
    """Return the user's cache folder for Flujo: `$XDG_CACHE_HOME/flujo`, or `~/.cache/flujo`."""
    base = environment().get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flujo"


def misspelt_variables() -> dict[str, str]:
    """Return unknown `FLUJO_` variables that resemble a known one, each with the known name."""
    known = [*ENVIRONMENT, ENV_VARIABLE, TRUST_VARIABLE, LOG_VARIABLE, KEYS_VARIABLE]
    unknown = (name for name in environment() if name.startswith("FLUJO_") and name not in known)
    meant = ((name, nearest(name, known, cutoff=0.8)) for name in unknown)
    return {name: near for name, near in meant if near}


# Validation errors ---------------------------------------------------------------------------------------


def _explained(errors: Iterable[Any], file: TomlFile) -> SettingsError:
    """Return all of pydantic's errors as one error, each with its place, in the file's order."""
    findings = []
    for found in errors:
        key = _key(found)
        words = _unknown(key) if found["type"] == "extra_forbidden" else _worded(key, found)
        findings.append((_line(file, key) or 0, f"{_source(key, file)}: {words}"))
    message = "\n".join(words for _, words in sorted(findings))
    return SettingsError(
        message, hint="docs/reference/settings.md lists every key", file=str(file.path) if file.path else None
    )


def _key(found: Any) -> Key:
    """Return the key of one of pydantic's errors; a table of several has its number in it."""
    is_key = (lambda _: True) if found["loc"][:2] == _RULES else (lambda part: isinstance(part, str))
    return tuple(str(part) for part in takewhile(is_key, found["loc"]))


def _unknown(key: Key) -> str:
    """Return the message for an unknown key, with a suggestion."""
    *table, name = key
    if tuple(table[:2]) == _RULES:
        fields = MatchTable.model_fields if table[3:] == ["match"] else RuleTable.model_fields
        return (
            f"unknown key `{name}` in [[budgets.rule]]; {suggest(name, fields, what='there are', cutoff=0.6)}"
        )
    where = f"[{'.'.join(table)}]" if table else CONFIG_FILE
    if table and name in Settings.model_fields:
        return f"unknown key `{name}` in {where}; it belongs above the first [table] of {CONFIG_FILE}"
    owner = next((t for t, section in _sections().items() if name in section.model_fields), None)
    if owner and [owner] != table:
        meant = f"it belongs under [{owner}]"
    else:
        meant = suggest(name, _fields(table), what="there are", cutoff=0.6)
    return f"unknown key `{name}` in {where}; {meant}"


def _fields(table: Sequence[str]) -> Iterable[str]:
    if not table:
        return Settings.model_fields
    named: Mapping[str, type[Section]] = {
        "agents": AgentModel,
        "mcp": McpServer,
        "prices": PriceTable,
        "providers": ProviderTable,
        "queues": QueueTable,
        "executors": ExecutorTable,
        "notify": NotifyTable,
        "schedules": ScheduleTable,
    }
    nested: Mapping[tuple[str, ...], type[Section]] = {
        ("evaluation", "evaluators"): EvaluatorTable,
        ("serve", "users"): UserTable,
        ("serve", "hooks"): HookTable,
        ("serve", "proxy"): ProxyTable,
    }
    if (inner := nested.get(tuple(table[:2]))) is not None:
        return inner.model_fields
    return (named.get(table[0]) or _sections()[table[0]]).model_fields


def _worded(key: Key, found: Any) -> str:
    if found["type"] == "value_error":
        return str(found["msg"]).removeprefix("Value error, ")
    says = str(found["msg"]).replace("Input should be", "must be")
    if key[:2] == _RULES and found["type"] == "missing":
        return f"[[budgets.rule]] has no `{key[-1]}`"
    if key[:2] == _RULES:
        key = key[3:]
    return f"`{'.'.join(key)}` {_WANTED.get(found['type'], says)}"


_WANTED = {
    "missing": "is missing",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "mapping_type": "must be a table",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
"""pydantic's error types → messages for the author of a TOML file."""


def _sections() -> dict[str, type[Section]]:
    fields = Settings.model_fields.items()
    return {
        name: field.annotation
        for name, field in fields
        if isinstance(field.annotation, type)
        and get_origin(field.annotation) is None
        and issubclass(field.annotation, Section)
    }


def _source(key: Key, file: TomlFile) -> str:
    dotted = ".".join(key)
    variable = next((v for v, k in ENVIRONMENT.items() if k == dotted and _is_given(v, environment())), None)
    if variable or file.path is None:
        return variable or "settings"
    line = _line(file, key)
    return f"{file.path}:{line}" if line else str(file.path)


def _line(file: TomlFile, key: Key) -> int | None:
    """Return the line of `key`, or of the nearest enclosing table with a known line."""
    lines = (file.line(key[:end]) for end in range(len(key), 0, -1))
    return next(filter(None, lines), None)


def _origins(file: TomlFile) -> dict[str, str]:
    origins: dict[str, str] = {}
    if file.path is not None:
        for key, _ in leaves(file.data):
            line = file.line(key)
            origins[".".join(key)] = f"{file.path.name}:{line}" if line else file.path.name
    for variable, dotted in ENVIRONMENT.items():
        if _is_given(variable, environment()):
            origins[dotted] = variable
    return origins
