"""`flujo tokens`: a secret is shown once, and its token listed and revoked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.conftest import Flujo

BILLING = ("tokens", "create", "billing", "--role", "operator")


def test_a_token_is_created_listed_and_revoked(flujo: Flujo) -> None:
    limits = ("--blueprint", "hello", "--queue", "support", "--metadata", "team=north")
    made = flujo(*BILLING, *limits, "--expires", "90d", "--json")
    assert made.exit_code == 0, made.stderr
    token = json.loads(made.stdout)
    assert token.pop("secret").startswith("flujo_")
    [listed] = json.loads(flujo("tokens", "list", "--json").stdout)
    assert listed == token
    assert (listed["role"], listed["state"]) == ("operator", "valid")
    assert listed["expires_at"] - listed["created_at"] == 90 * 86_400
    assert flujo("tokens", "revoke", "billing", "--by", "ada").stderr == "token billing is revoked\n"
    [row] = flujo("tokens", "list").stdout.splitlines()[1:]
    assert row.split()[:6] == ["billing", "operator", "hello,", "support,", "team=north", "revoked"]


def test_the_secret_alone_is_on_stdout(flujo: Flujo) -> None:
    made = flujo(*BILLING)
    assert made.stdout.startswith("flujo_")
    assert made.stdout.count("\n") == 1
    assert "the only time that the secret is shown" in made.stderr


def test_a_name_that_is_taken_and_an_unknown_name_are_errors(flujo: Flujo) -> None:
    flujo(*BILLING)
    assert "there is no token 'service'" in flujo("tokens", "revoke", "service").stderr
    again = flujo(*BILLING)
    assert again.exit_code == 2
    assert "there is a token 'billing' already [FLJ662]" in again.stderr


def test_the_hash_of_a_password_is_on_stdout_and_the_password_is_not(flujo: Flujo) -> None:
    made = flujo("tokens", "hash-password", stdin="correct horse\n")
    assert made.stdout.startswith("$argon2id$")
    assert "[serve.users.NAME]" in made.stderr
    assert "correct" not in made.output
    assert "has 5 characters" in flujo("tokens", "hash-password", stdin="short\n").stderr
