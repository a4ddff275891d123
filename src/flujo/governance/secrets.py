"""Reads secrets from the environment and registers their values with the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.exceptions import SecretNotSet
from flujo.governance.redactor import SHORTEST_SECRET
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flujo.domain.secrets import Secret


def secret_problem(name: str, environment: Mapping[str, str]) -> str | None:
    """Return why a variable cannot be used as a secret, or None."""
    value = _value(name, environment)
    if not value:
        return f"the environment variable {name} is not set"
    if len(value) < SHORTEST_SECRET:
        return f"the value of {name} has fewer than {SHORTEST_SECRET} characters, too few to be hidden"
    return None


def read_secrets(secrets: Iterable[Secret], environment: Mapping[str, str], what: str) -> Mapping[str, str]:
    """Return the values of secrets by name; the gate hides them from now on.

    Args:
        secrets: the secrets.
        environment: the variables.
        what: the tool that needs them, for errors.

    Raises:
        SecretNotSet: a variable is not set, or too short to be hidden.
    """
    values: dict[str, str] = {}
    for secret in secrets:
        if why := secret_problem(secret.name, environment):
            raise SecretNotSet(f"{what} needs a secret, and {why}", secret=secret.name)
        values[secret.name] = _value(secret.name, environment)
        GATE.know([values[secret.name]], of=secret.name)
    return values


def _value(name: str, environment: Mapping[str, str]) -> str:
    # Stripped like the keys of providers: a secret from a file often ends in a newline.
    return environment.get(name, "").strip()
