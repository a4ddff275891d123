from __future__ import annotations

import pytest

from flujo.domain.secrets import Secret
from flujo.exceptions import SecretNotSet
from flujo.governance.secrets import read_secrets, secret_problem
from flujo.governance.sink import GATE

KEY = "sk-canary-vault-0123456789"


def test_a_secret_that_is_read_is_hidden() -> None:
    assert read_secrets([Secret("VAULT")], {"VAULT": f" {KEY}\n"}, "tool `pay`") == {"VAULT": KEY}
    assert GATE.text(f"401 for {KEY}") == "401 for ***"


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "the environment variable VAULT is not set"),
        ({"VAULT": " \n"}, "the environment variable VAULT is not set"),
        ({"VAULT": "1234567"}, "the value of VAULT has fewer than 8 characters, too few to be hidden"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused(environment: dict[str, str], why: str) -> None:
    assert secret_problem("VAULT", environment) == why
    with pytest.raises(SecretNotSet) as refused:
        read_secrets([Secret("VAULT")], environment, "tool `pay`")
    assert (refused.value.message, refused.value.secret) == (f"tool `pay` needs a secret, and {why}", "VAULT")
