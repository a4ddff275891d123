"""The lists of known providers and settings match those of pydantic-ai."""

from __future__ import annotations

import warnings

import pytest
from pydantic_ai.profiles.openai import SAMPLING_PARAMS, openai_model_profile
from pydantic_ai.providers import infer_provider_class
from pydantic_ai.settings import ModelSettings

from flujo.agents.local_weights import CATALOGUE
from flujo.domain.model_names import (
    LOCAL_MODELS,
    OF_REASONING,
    PROVIDERS,
    SETTINGS,
    model_problem,
    unfit_setting,
    unknown_setting,
)


def test_the_settings_are_those_of_pydantic_ai() -> None:
    assert set(SETTINGS) == set(ModelSettings.__annotations__)
    assert {each for each in SAMPLING_PARAMS if not each.startswith("openai_")} == OF_REASONING


def test_the_local_models_are_those_of_the_catalogue() -> None:
    assert set(LOCAL_MODELS) == set(CATALOGUE)


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - {"local", "test"}))
def test_pydantic_ai_has_every_provider(provider: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            infer_provider_class(provider)
        except ImportError:
            pass  # known, and its package is not installed


@pytest.mark.parametrize(
    "name",
    [
        "gpt-5",
        "gpt-5-mini",
        "gpt-5-2025-08-07",
        "gpt-5-codex",
        "gpt-5-chat-latest",
        "gpt-5.1",
        "gpt-5.2",
        "o1",
        "o3-mini",
        "o4-mini",
        "gpt-4o",
        "gpt-4.1-mini",
    ],
)
def test_only_models_that_always_reason_refuse_a_temperature(name: str) -> None:
    profile = openai_model_profile(name)
    assert profile is not None
    always = bool(profile.get("openai_supports_reasoning")) and not profile.get(
        "openai_supports_reasoning_effort_none"
    )
    assert (unfit_setting(f"openai:{name}", "temperature") is not None) is always


@pytest.mark.parametrize(
    ("model", "meant"),
    [
        ("gpt-5-mini", "openai:gpt-5-mini"),
        ("o3-mini", "openai:o3-mini"),
        ("gemini-2.5-flash", "google:gemini-2.5-flash"),
        ("smollm2", "local:smollm2"),
        ("openai/gpt-4o", "openai:gpt-4o"),
        ("openai:", None),
        (":gpt-5", None),
        ("antropic:claude-haiku-4-5", "anthropic:claude-haiku-4-5"),
        ("kennell:fox", "kennel:fox"),
        ("local:smollm", "local:smollm2"),
    ],
)
def test_a_wrong_name_leads_to_the_right_one(model: str, meant: str | None) -> None:
    problem = model_problem(model, ["kennel"])
    assert problem is not None
    assert problem.meant == meant


@pytest.mark.parametrize(
    "model", ["kennel:fox", "openai:anything", "local:smollm2", "local:/m/x.gguf", "vllm:x"]
)
def test_a_known_provider_has_any_model(model: str) -> None:
    assert model_problem(model, ["kennel"]) is None


def test_a_setting_that_is_given_is_not_suggested_again() -> None:
    problem = unknown_setting("temprature", ["temperature", "temprature"])
    assert problem is not None
    assert problem.meant != "temperature"
