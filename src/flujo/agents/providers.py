"""Turns `provider:model` into a pydantic-ai model; errors name the missing package or key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class
from pydantic_ai.settings import ModelSettings

from flujo.agents.connection import Connection
from flujo.agents.request_limits import RequestLimits, limits_of
from flujo.agents.settings import NO_TAGS
from flujo.domain.commands import command
from flujo.domain.model_names import model_problem, without_provider
from flujo.domain.providers import ConnectionSettings, NamedProvider
from flujo.domain.wording import listed
from flujo.exceptions import ModelUnavailable, ProviderUnavailable
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

EXTRAS = ("openai", "anthropic", "google")
"""Providers for which Flujo has an extra of the same name."""


@dataclass(frozen=True, slots=True)
class _Access:
    """The environment variables of a provider's key (the first that is set) and of its address."""

    keys: tuple[str, ...]
    base_url: str | None = None


_OPENAI = _Access(("OPENAI_API_KEY",), "OPENAI_BASE_URL")
ACCESS: Mapping[str, _Access] = {
    "openai": _OPENAI,
    "openai-chat": _OPENAI,
    "openai-responses": _OPENAI,
    "anthropic": _Access(("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL"),
    "google": _Access(("GOOGLE_API_KEY", "GEMINI_API_KEY"), "GOOGLE_GEMINI_BASE_URL"),
    "mistral": _Access(("MISTRAL_API_KEY",)),
    "groq": _Access(("GROQ_API_KEY",), "GROQ_BASE_URL"),
    "deepseek": _Access(("DEEPSEEK_API_KEY",)),
    "openrouter": _Access(("OPENROUTER_API_KEY",)),
    "cohere": _Access(("CO_API_KEY",)),
}
"""The usual providers, `BUILT_IN`. pydantic-ai has others, with variables of its own."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A provider's model, ready for requests."""

    connection: Connection
    key_name: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_free: bool = False
    has_tool_protocol: bool = True
    limits: RequestLimits | None = field(default=None, compare=False)
    named: NamedProvider | None = None

    @property
    def answered_with(self) -> Mapping[str, Any]:
        """The model's address, API and names of headers, and the version of the provider's package."""
        model = self.connection.model
        package = type(getattr(model, "client", model)).__module__.partition(".")[0]
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = ""
        own = {"base_url": model.base_url, "package": package, "version": version}
        return own if self.named is None else {**self.named.identity, **own}

    async def prepare(self) -> None:
        """Do nothing: a remote model needs nothing on this machine."""

    def open(self) -> AbstractAsyncContextManager[Model]:
        """Return a context manager of the model, whose connections stay open inside it."""
        return self.connection.open()


def remote_model(
    name: str, environment: Mapping[str, str], providers: Mapping[str, NamedProvider] | None = None
) -> RemoteModel:
    """Return the model `name` (`provider:model`), without a network request.

    Args:
        name: a provider that the project names, or one of pydantic-ai, and a model.
        environment: the variables with keys and addresses.
        providers: the providers that the project names.

    Raises:
        ModelUnavailable: `name` is not of that form.
        ProviderUnavailable: the provider is unknown, its package is not installed, or its key is not set.
    """
    providers = providers or {}
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        wrong = without_provider(name)
        raise ModelUnavailable(wrong.message, hint=wrong.hint, model=name, retryable=False)
    named = providers.get(provider)
    kind = provider if named is None else named.kind
    access = ACCESS.get(kind)
    reached = ConnectionSettings() if named is None else named.connection(environment)
    if reached.key is None and reached.base_url is None and access is not None:
        key = _first(environment, access.keys)
        reached = replace(reached, key=key, secrets=(*reached.secrets, *([key] if key else ())))
    settings = _request_settings(named, reached)

    def make() -> Model:
        made = infer_model(
            f"{kind}:{model}", lambda kind: _without_retries(_provider(kind, access, reached, environment))
        )
        _require_one_request(kind, made)
        # `infer_model` takes neither: `test_tags_inside_a_json_text_are_text` guards the private names.
        made._profile = ModelProfile(thinking_tags=NO_TAGS)
        made._settings = settings
        vars(made).pop("profile", None)
        return made

    try:
        connection = Connection(make)
    except ImportError as error:
        raise _not_installed(provider, error) from error
    except ValueError:
        raise _unknown(name, providers) from None
    except UserError as error:
        raise _unusable(provider, error) from error
    GATE.suspect(reached.headers.values())
    return RemoteModel(
        connection,
        (named and named.key_name) or (access.keys[0] if access and reached.base_url is None else None),
        reached.secrets,
        limits=None if named is None else limits_of(provider, connection.model.base_url, named.allowed),
        named=named,
    )


def _request_settings(named: NamedProvider | None, reached: ConnectionSettings) -> ModelSettings | None:
    """Return the settings of every request to a named provider, unless an agent overrides them."""
    if named is None:
        return None
    settings = ModelSettings()
    if reached.headers:
        settings["extra_headers"] = dict(reached.headers)
    if named.timeout_s is not None:
        settings["timeout"] = named.timeout_s
    return settings


def _provider(
    kind: str, access: _Access | None, reached: ConnectionSettings, environment: Mapping[str, str]
) -> Provider[Any]:
    if access is None:
        return infer_provider(kind)
    made: Any = infer_provider_class(
        kind
    )  # first, so that a missing package is reported before a missing key
    base_url = reached.base_url or (environment.get(access.base_url) if access.base_url else None)
    if reached.key is None and base_url is None:
        raise ProviderUnavailable(
            f"provider {kind!r} needs a key, and {' or '.join(access.keys)} is not set",
            hint=f"set {access.keys[0]}, or use a model that needs no key, such as `local:smollm2`",
            provider=kind,
            variable=access.keys[0],
            retryable=False,
        )
    # A self-hosted server behind the base URL often accepts any key, but the clients require one.
    options = {"api_key": reached.key or "none"} | ({"base_url": base_url} if base_url else {})
    return made(**options)  # type: ignore[no-any-return]  # each provider has its own constructor


_TAKES_NO_RETRIES = frozenset({"bedrock", "huggingface", "xai"})
"""Providers whose clients take no number of retries per request, and here never retry."""


def _without_retries(provider: Provider[Any]) -> Provider[Any]:
    """Return a provider whose client does not retry, if its client takes no number of retries per request."""
    made: Any = provider
    if provider.name == "bedrock":
        # botocore makes its retry handler with the client.
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        before = made.client.meta
        once = before.config.merge(Config(retries={"total_max_attempts": 1}))
        address = {"region_name": before.region_name, "endpoint_url": before.endpoint_url}
        made = type(made)(bedrock_client=boto3.client("bedrock-runtime", config=once, **address))
    if provider.name == "xai":
        # pydantic-ai makes a client per event loop from these arguments and takes no options of the channel.
        made._lazy_client._kwargs["channel_options"] = [("grpc.enable_retries", 0)]
    return cast("Provider[Any]", made)


def _require_one_request(provider: str, model: Model) -> None:
    """Refuse a model whose client may send one request several times.

    Raises:
        ProviderUnavailable: a budget could not count the requests of its client.
    """
    if "max_retries" in model.unsupported_settings and provider not in _TAKES_NO_RETRIES:
        raise ProviderUnavailable(
            f"the client of provider {provider!r} retries by itself, and no setting stops it: a budget could "
            "not count its requests",
            hint=f"use another provider; without retries are {listed(sorted([*ACCESS, *_TAKES_NO_RETRIES]))}",
            provider=provider,
            retryable=False,
        )


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    # Stripped: a key from a file often ends in a newline, which HTTP headers do not allow.
    return next((value for name in names if (value := environment.get(name, "").strip())), None)


def _not_installed(provider: str, error: ImportError) -> ProviderUnavailable:
    named = re.search(r"pydantic-ai-slim\[([\w-]+)\]", str(error))
    extra = named.group(1) if named else provider
    package = f"flujo[{extra}]" if extra in EXTRAS else f"pydantic-ai-slim[{extra}]"
    return ProviderUnavailable(
        f"provider {provider!r} needs a package that is not installed",
        hint=command("pip", "install", package),
        provider=provider,
        retryable=False,
    )


def _unknown(model: str, named: Mapping[str, NamedProvider]) -> ProviderUnavailable:
    provider = model.partition(":")[0]
    wrong = model_problem(model, named)
    return ProviderUnavailable(
        f"provider {provider!r} is unknown",
        hint=None if wrong is None else wrong.hint,
        provider=provider,
        retryable=False,
    )


def _unusable(provider: str, error: UserError) -> ProviderUnavailable:
    # The first sentence of pydantic-ai's message names the variable; the rest is advice for its own users.
    return ProviderUnavailable(
        f"provider {provider!r} cannot be used: {str(error).partition(' To try Pydantic AI')[0]}",
        hint="set the missing value in the environment",
        provider=provider,
        retryable=False,
    )
