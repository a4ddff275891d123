"""What the project is set to: the environment over flujo.toml over defaults, each value with its origin."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from flujo.exceptions import SettingsError
from flujo.governance.redactor import redact_uri

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

CONFIG_FILE = "flujo.toml"

ENVIRONMENT: Mapping[str, str] = {
    "FLUJO_STATE_URI": "state_uri",
    "FLUJO_STRICT_DSL": "strict_dsl",
    "FLUJO_CACHE_DIR": "cache_dir",
}
"""Which environment variables are settings, and of which key."""

PROMISED = (
    "FLUJO_ENV",
    "FLUJO_GOVERNANCE_PII_SCRUB",
    "FLUJO_GOVERNANCE_PII_STRONG",
    "FLUJO_GOVERNANCE_TOOL_ALLOWLIST",
    "FLUJO_SHADOW_EVAL_ENABLED",
    "FLUJO_SHADOW_EVAL_SINK",
)
"""Variables whose feature has not arrived: a set one is refused, because passing over it would be a lie."""

_OFF = ("", "0", "false", "no", "off")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(_Section):
    """`[settings]`: connections to Postgres, and how runs are looked after that lost their process."""

    postgres_pool_min: int = Field(default=1, ge=0, le=1000)
    """How many connections to Postgres one process keeps."""
    postgres_pool_max: int = Field(default=10, ge=1, le=1000)
    """How many it opens at most."""
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


class Aros(_Section):
    """`[aros]`: how structured output is asked for, and how much of it may be mended."""

    coercion_tolerant_level: int = Field(default=2, ge=0, le=2)
    """0: as it came · 1: fences and prose are stripped, light coercion · 2: broken JSON is repaired."""
    structured_output_default: Literal["openai_json", "prompt"] = "openai_json"
    """The provider's JSON mode, or the schema written into the instructions."""


class Lockfile(_Section):
    """`[lockfile]`: whether a blueprint has to match flujo.lock to run."""

    enabled: bool = False


class Cache(_Section):
    """`[cache]`: where answers of cached steps are kept beyond a run."""

    backend: Literal["memory", "state"] = "memory"
    """In memory, as long as the process lives, or in the state database, for every process that uses it."""


class Blueprints(_Section):
    """`[blueprints]`: where the project's blueprints are, and which code they may name."""

    paths: tuple[str, ...] = ("blueprints",)
    allow_callables: tuple[str, ...] = ()
    """Patterns of modules, for instance `skills.*`."""


class ProjectTable(_Section):
    """`[project]`: the project's name, and who makes its `AppResources`."""

    name: str = ""
    resources: str | None = None
    """`module:callable`, an async context manager."""


class Settings(BaseSettings):
    """Every setting, frozen. `origin(key)` says where a value comes from."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    state_uri: str = "sqlite:///.flujo/state.db"
    """The database: `sqlite:///path` (relative to the project) or `postgresql://…`."""
    strict_dsl: bool = False
    """Whether a warning about a blueprint counts as an error."""
    cache_dir: Path | None = None
    """Where models are kept; None means `flujo` in the user's cache."""
    settings: Pool = Pool()
    aros: Aros = Aros()
    lockfile: Lockfile = Lockfile()
    cache: Cache = Cache()
    blueprints: Blueprints = Blueprints()
    project: ProjectTable = ProjectTable()
    budgets: Mapping[str, Any] = Field(default_factory=dict)
    env: Mapping[str, Any] = Field(default_factory=dict)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - theirs reads more than we mean
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - theirs reads more than we mean
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - theirs reads more than we mean
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return our two sources: the environment, then what flujo.toml says (handed in by `load`)."""
        return (_Environment(settings_cls), init_settings)

    @field_validator("cache_dir")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else None

    @field_validator("budgets")
    @classmethod
    def _no_budgets_yet(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if value:
            raise ValueError("[budgets] is not available yet; remove it, because nothing would hold it")
        return value

    @field_validator("env")
    @classmethod
    def _no_environments_yet(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if value:
            raise ValueError("[env.NAME] is not available yet; remove it, because nothing would read it")
        return value

    @property
    def cache_home(self) -> Path:
        """Where downloaded models are kept: `cache_dir`, or `flujo` in the user's cache."""
        return self.cache_dir or default_cache_dir()

    def origin(self, key: str) -> str:
        """Return where the value of `key` (dotted) comes from: a variable, a file and line, or `default`."""
        return self._origins.get(key, "default")

    def listed(self) -> Iterator[tuple[str, Any, str]]:
        """Yield each setting's dotted key, its value fit to be shown, and its origin."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Section):
                for inner in type(value).model_fields:
                    key = f"{name}.{inner}"
                    yield key, getattr(value, inner), self.origin(key)
            elif name not in ("budgets", "env"):
                shown = redact_uri(value) if isinstance(value, str) else value
                yield name, shown, self.origin(name)


class _Environment(PydanticBaseSettingsSource):
    """The variables that are settings, and no others: `FLUJO_PROJECT` of somebody's own stays theirs."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - the base class asks so
        for variable, key in ENVIRONMENT.items():
            if key == field_name:
                return environment().get(variable) or None, key, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        given = {key: environment().get(variable) for variable, key in ENVIRONMENT.items()}
        return {key: value for key, value in given.items() if value}


def environment() -> Mapping[str, str]:
    """Return a copy of the process's environment: the one door through which it is read."""
    return dict(os.environ)  # noqa: TID251 - this module is that door


def load(config_file: Path | None = None) -> Settings:
    """Return the settings of a project.

    Args:
        config_file: its flujo.toml, or None for a folder without one.

    Raises:
        SettingsError: an unknown key, a value that cannot be used, text that is no TOML, or a variable
            whose feature has not arrived; with file and line where there is one.
    """
    for variable in PROMISED:
        if environment().get(variable, "").lower() not in _OFF:
            raise SettingsError(
                f"{variable} is set, and what it asks for is not available yet",
                hint=f"unset {variable}: Flujo does not go on as if it had been heard",
                variable=variable,
            )
    text = _text(config_file) if config_file else ""
    data = _parsed(text, config_file) if config_file else {}
    try:
        settings = Settings(**data)
    except ValidationError as error:
        raise _explained(error, text, config_file) from None
    settings._origins.update(_origins(data, text, config_file))
    return settings


def default_cache_dir() -> Path:
    """Return the user's cache folder for Flujo: `$XDG_CACHE_HOME/flujo`, or `~/.cache/flujo`."""
    base = environment().get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flujo"


def misspelt_variables() -> dict[str, str]:
    """Return the variables that look like a setting of ours and are none, each with what was meant."""
    known = [*ENVIRONMENT, *PROMISED]
    close = {
        name: difflib.get_close_matches(name, known, 1, 0.8)
        for name in environment()
        if name.startswith("FLUJO_") and name not in known
    }
    return {name: matches[0] for name, matches in close.items() if matches}


# flujo.toml, with its lines -----------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} is not UTF-8 text", hint="save the file as UTF-8", file=str(path)
        ) from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = re.sub(r" \(at .*\)$", "", str(error))
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else max(1, text.count("\n"))  # else it is the file's end
        raise SettingsError(
            f"{path}:{line}: not TOML: {reason[:1].lower()}{reason[1:]}",
            hint="text needs quotes, tables are written as [name]",
            file=str(path),
            line=line,
        ) from None
    return {key: _filled(value, key, text, path) for key, value in data.items()}


def _filled(value: Any, key: str, text: str, path: Path) -> Any:
    """Return `value` with each `${NAME}` replaced from the environment."""
    if isinstance(value, dict):
        return {name: _filled(item, f"{key}.{name}", text, path) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, key, text, path) for item in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment():
            raise SettingsError(
                f"{_place(path, text, key)}: `{key}` asks for ${{{name}}}, which is not in the environment",
                hint=f"set it: export {name}=…",
                file=str(path),
            )
        return environment()[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, value)


def _explained(error: ValidationError, text: str, path: Path | None) -> SettingsError:
    """Return pydantic's findings in our words, all at once, each with its place, in the file's order."""
    findings = []
    for found in error.errors(include_url=False, include_input=False):
        parts = [str(part) for part in found["loc"]]
        key = ".".join(parts[:2] if parts and parts[0] in _sections() else parts[:1])
        words = _unknown(key) if found["type"] == "extra_forbidden" else _worded(key, found)
        findings.append((_line(text, key) or 0, f"{_source(key, text, path)}: {words}"))
    message = "\n".join(words for _, words in sorted(findings))
    return SettingsError(
        message, hint="docs/reference/settings.md has every key", file=str(path) if path else None
    )


def _unknown(key: str) -> str:
    """Return what is wrong with a key that nobody reads, and which one was meant."""
    table, _, name = key.rpartition(".")
    where = f"[{table}]" if table else CONFIG_FILE
    owner = next((t for t, section in _sections().items() if name in section.model_fields), None)
    known = [*_sections()[table].model_fields] if table else [*Settings.model_fields]
    close = difflib.get_close_matches(name, known, 1, 0.6)
    if owner and owner != table:
        meant = f"it belongs under [{owner}]"
    else:
        meant = f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(known)}"
    return f"unknown key `{name}` in {where}; {meant}"


def _worded(key: str, found: Any) -> str:
    if found["type"] == "value_error":
        return str(found["msg"]).removeprefix("Value error, ")
    says = str(found["msg"]).replace("Input should be", "has to be")
    return f"`{key}` {_WANTED.get(found['type'], says)}"


_WANTED = {
    "bool_parsing": "has to be true or false",
    "bool_type": "has to be true or false",
    "int_parsing": "has to be a whole number",
    "int_type": "has to be a whole number",
    "int_from_float": "has to be a whole number",
    "string_type": "has to be text",
    "tuple_type": "has to be a list",
    "model_type": "has to be a table",
    "model_attributes_type": "has to be a table",
}
"""pydantic's kinds of error in the words of somebody who writes TOML."""


def _sections() -> dict[str, type[_Section]]:
    fields = Settings.model_fields.items()
    return {
        name: field.annotation
        for name, field in fields
        if isinstance(field.annotation, type)
        and get_origin(field.annotation) is None
        and issubclass(field.annotation, _Section)
    }


def _source(key: str, text: str, path: Path | None) -> str:
    variable = next((v for v, k in ENVIRONMENT.items() if k == key and environment().get(v)), None)
    return variable or (_place(path, text, key) if path else "settings")


def _place(path: Path, text: str, key: str) -> str:
    line = _line(text, key)
    return f"{path}:{line}" if line else str(path)


def _line(text: str, key: str) -> int | None:
    """Return the line that sets `key` (dotted), when it is written plainly; tomllib itself keeps none."""
    table, _, name = key.rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            current = header[1]
            if current == key:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line):
            return number
    return None


def _origins(data: Mapping[str, Any], text: str, path: Path | None) -> dict[str, str]:
    origins: dict[str, str] = {}
    for key, value in data.items():
        inner = [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]
        origins |= {name: _place(Path(path.name), text, name) for name in inner} if path else {}
    for variable, key in ENVIRONMENT.items():
        if environment().get(variable):
            origins[key] = variable
    return origins
