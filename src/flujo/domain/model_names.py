"""What is known of models without a network or a provider's package: providers, names, and settings.

`tests/domain/test_model_names.py` compares the lists with pydantic-ai and with the catalogue of local models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.providers import BUILT_IN
from flujo.domain.wording import listed, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

LOCAL_MODELS = ("smollm2",)
"""The local models that Flujo downloads by name."""

PROVIDERS = (
    *BUILT_IN, "local", "test", "alibaba", "azure", "azure-responses", "bedrock", "bedrock-mantle",
    "cerebras", "crusoe", "fireworks", "github", "github-copilot", "google-cloud", "google-decisions",
    "heroku", "huggingface", "litellm", "meta", "moonshotai", "nebius", "ollama", "openai-chatgpt",
    "openai-codex", "openai-decisions", "ovhcloud", "sambanova", "snowflake", "system-one", "together",
    "typesafe", "vercel", "vllm", "xai", "zai",
)  # fmt: skip
"""The providers whose models answer requests."""

SETTINGS = (
    "max_tokens", "temperature", "top_p", "top_k", "timeout", "request_timeout", "first_event_timeout",
    "framing_announcement", "max_retries", "parallel_tool_calls", "tool_choice", "seed", "presence_penalty",
    "frequency_penalty", "logit_bias", "stop_sequences", "extra_headers", "thinking", "citations", "cache",
    "service_tier", "extra_body",
)  # fmt: skip
"""The settings that do not depend on the provider. Those of one provider begin with its name."""

OF_REASONING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias"})
"""The settings that a reasoning model of OpenAI does not take."""

_FAMILIES = (
    (r"gpt-|chatgpt-|o[1-9]\b", "openai"), (r"claude-", "anthropic"), (r"gemini-", "google"),
    (r"(?:mistral|ministral|magistral|codestral|pixtral)-", "mistral"), (r"deepseek-", "deepseek"),
    (r"command-", "cohere"), (r"grok-", "xai"), (rf"(?:{'|'.join(LOCAL_MODELS)})$", "local"),
)  # fmt: skip
"""How the names of a provider's models begin."""

_SAME_API = {"openai-chat": "openai", "openai-responses": "openai"}
_OWN_API = ("openai", "anthropic", "google", "mistral", "groq", "cohere", "xai")
"""Providers whose own settings no other of them takes."""
_ALWAYS_REASONS = re.compile(r"(?:o[134]|gpt-5(?!\.|-chat))(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class NameProblem:
    """What is wrong with the name of a model or of a setting; `meant` is the name that is probably meant."""

    message: str
    hint: str
    meant: str | None = None
    is_certain: bool = True
    """Whether no request can work."""


def model_problem(model: str, named: Collection[str]) -> NameProblem | None:
    """Return why no provider has a model, or None.

    Args:
        model: `provider:model`, as it is written.
        named: the providers that the project names.
    """
    provider, colon, name = model.partition(":")
    if not (provider and colon and name):
        return without_provider(model)
    if provider in named:
        return None
    if provider == "local" and name not in LOCAL_MODELS and not name.endswith(".gguf"):
        near = nearest(name, LOCAL_MODELS)
        known = listed(f"local:{each}" for each in LOCAL_MODELS)
        hint = f"known: {known}; your own file: `local:/path/to/file.gguf`; of a server on this machine: "
        meant = None if near is None else f"local:{near}"
        return NameProblem(f"there is no local model called {name!r}", f"{hint}`ollama:{name}`", meant)
    if provider in PROVIDERS:
        return None
    others = [*named, *(each for each in BUILT_IN if each not in named), "local"]
    near = nearest(provider, [*named, *PROVIDERS])
    meant = None if near is None else f"{near}:{name}"
    hint = "" if meant is None else f"did you mean `{meant}`? "
    hint += f"known providers: {listed(others, most=len(others))}, and `[providers.NAME]` of flujo.toml"
    return NameProblem(f"provider {provider!r} is unknown", hint, meant, near is not None)


def without_provider(model: str) -> NameProblem:
    """Return what is wrong with a model that is not written `provider:model`."""
    slashed, _, rest = model.partition("/")
    family = next((provider for begins, provider in _FAMILIES if re.match(begins, model)), None)
    meant = None if family is None else f"{family}:{model}"
    if rest and ":" not in model and slashed in PROVIDERS:
        meant = f"{slashed}:{rest}"
    hint = f"did you mean `{meant}`?" if meant else "write `provider:model`, for instance `local:smollm2`"
    return NameProblem(f"model {model!r} names no provider", hint, meant)


def unknown_setting(setting: str, given: Collection[str]) -> NameProblem | None:
    """Return why a name is not that of a setting, or None.

    Args:
        setting: the name.
        given: the names of all settings of the agent, which are not suggested again.
    """
    if setting in SETTINGS or setting.partition("_")[0] in _PREFIXES:
        return None
    near = nearest(setting, [each for each in SETTINGS if each not in given])
    hint = f"did you mean `{near}`?" if near else f"settings: {listed(SETTINGS, most=len(SETTINGS))}"
    return NameProblem(f"`{setting}` is not a setting of models", hint, near, near is not None)


def unfit_setting(model: str, setting: str) -> NameProblem | None:
    """Return why requests to a model are sent without a setting, or None.

    Args:
        model: `provider:model`, with the name of a known provider; any other model takes every setting.
        setting: the name of the setting.
    """
    provider, _, name = model.partition(":")
    api, prefix = _SAME_API.get(provider, provider), setting.partition("_")[0]
    if api in _OWN_API and prefix in _OWN_API and prefix != api:
        message = f"`{setting}` is a setting of {prefix!r}, and {model!r} does not take it"
        return NameProblem(message, "remove it, or ask a model of that provider", is_certain=False)
    if api == "openai" and setting in OF_REASONING and _ALWAYS_REASONS.match(name):
        message = f"{model!r} is a reasoning model and does not take `{setting}`"
        return NameProblem(message, "remove it: requests are sent without it", is_certain=False)
    return None


_PREFIXES = frozenset({*(each.partition("-")[0] for each in PROVIDERS), "gateway"})
