"""Named providers: their variables are filled in when an agent is built, and no secret is in their identity."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.providers import NamedProvider, is_address, is_header_value
from flujo.exceptions import ProviderUnavailable


def provider(**more: Any) -> NamedProvider:
    return NamedProvider(**{"name": "kennel", "kind": "openai-chat", "base_url": "http://kennel/v1", **more})


def test_variables_are_filled_in_from_the_environment() -> None:
    named = provider(key="${KEY}", headers={"X-Team": "dogs", "Authorization": "Bearer ${TOKEN}"})
    reached = named.connection({"KEY": "a-long-key\n", "TOKEN": "a-long-token"})
    assert reached.key == "a-long-key"
    assert reached.headers == {"X-Team": "dogs", "Authorization": "Bearer a-long-token"}
    assert reached.secrets == ("a-long-key", "a-long-token")


@pytest.mark.parametrize("environment", [{}, {"KEY": ""}, {"KEY": " \n"}])
def test_a_variable_that_is_not_set_is_named_with_its_place(environment: dict[str, str]) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        provider(key="${KEY}", places={"key": "flujo.toml:3"}).connection(environment)
    assert caught.value.message.startswith("flujo.toml:3: `providers.kennel.key` uses ${KEY}")
    assert (caught.value.variable, caught.value.provider) == ("KEY", "kennel")


@pytest.mark.parametrize(
    ("more", "environment"),
    [
        ({"headers": {"X-Token": "${A}"}}, {"A": "canary\r\nX-Evil: 1"}),
        ({"headers": {"X-Token": "${A}"}}, {"A": "canary-é"}),
        ({"base_url": "${A}"}, {"A": "http://ada:canary@kennel/v1"}),
        ({"base_url": "http://${A}"}, {"A": "kennel:canary"}),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_not_shown(
    more: dict[str, Any], environment: dict[str, str]
) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        provider(**more).connection(environment)
    assert "canary" not in f"{caught.value} {caught.value.hint}"


def test_the_identity_has_the_names_of_headers_and_no_value() -> None:
    named = provider(key="${KEY}", headers={"X-Team": "canary"}, timeout_s=3.0)
    assert named.identity == {
        "kind": "openai-chat",
        "base_url": "http://kennel/v1",
        "headers": ["x-team"],
    }
    assert "canary" not in repr(named)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("http://localhost:8000/v1", True),
        ("https://[::1]:8000", True),
        ("localhost:8000", False),
        ("ftp://kennel", False),
        ("http://", False),
        ("http://kennel:port", False),
        ("http://a@kennel", False),
        ("http://kennel/v1?key=canary", False),
        ("http://kennel/v 1", False),
        ("http://[::1", False),
    ],
)
def test_an_address_is_plain_http(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


def test_a_header_value_has_no_line_break() -> None:
    assert is_header_value("Bearer a b")
    assert not is_header_value("a\nb")
