"""The gate masks secrets in text and refuses them in values."""

from __future__ import annotations

import pytest

from flujo.domain import canonical
from flujo.domain.personal_data import Rules
from flujo.exceptions import SecretInValue
from flujo.governance.sink import Gate

KEY = "sk-canary-0123456789"


@pytest.fixture
def gate() -> Gate:
    """Return a gate that knows a key and suspects the value of a variable."""
    gate = Gate()
    gate.know([KEY], of="OPENAI_API_KEY")
    gate.suspect(["customer_id"])
    return gate


def test_text_for_people_has_neither_known_nor_suspected_secrets(gate: Gate) -> None:
    assert gate.text(f"{KEY} refused for customer_id") == "*** refused for ***"


def test_results_keep_values_that_only_look_like_secrets(gate: Gate) -> None:
    assert gate.result(f"{KEY} of customer_id") == "*** of customer_id"
    assert gate.data({"customer_id": [KEY, 1, None, {"url": "redis://u:pw@h"}]}) == {
        "customer_id": ["***", 1, None, {"url": "redis://u:***@h"}]
    }


def test_a_value_with_a_whole_secret_is_refused_by_the_name_of_the_secret(gate: Gate) -> None:
    with pytest.raises(SecretInValue) as refused:
        gate.admit(canonical.encode({"note": [f"use {KEY}"]}), "output of step 'a'")
    assert refused.value.message == "output of step 'a' contains the value of OPENAI_API_KEY"
    assert KEY not in f"{refused.value!r} {refused.value.facts} {refused.value.hint}"


def test_a_value_with_part_of_a_secret_or_a_suspected_secret_is_stored_unchanged(gate: Gate) -> None:
    value = canonical.encode({"note": KEY[:-1], "field": "customer_id"})
    assert gate.admit(value, "the input") is value


@pytest.mark.parametrize("secret", ['with "quotes" and \\', "pässwörd-12", "line\nbreak-12", "tab\there-12"])
def test_a_secret_is_found_in_a_value_however_json_writes_it(secret: str) -> None:
    gate = Gate()
    gate.know([secret], of="a password")
    with pytest.raises(SecretInValue):
        gate.admit(canonical.encode({"deep": [{"text": f"<{secret}>"}]}), "the output")


def test_a_value_of_less_than_eight_characters_is_not_learned() -> None:
    gate = Gate()
    gate.know(["seven77"], of="SHORT_API_KEY")
    assert gate.admit(b'"seven77"', "the output") == b'"seven77"'
    assert gate.text("seven77") == "seven77"


def test_a_gate_without_secrets_masks_passwords_in_urls() -> None:
    assert Gate().text("postgresql://u:pw@h/db") == "postgresql://u:***@h/db"


def test_personal_data_is_masked_behind_secrets_once_rules_are_given(gate: Gate) -> None:
    said = f"{KEY} of customer_id jane@example.org, https://bob:hunter22@example.org"
    assert gate.text(said) == "*** of *** jane@example.org, https://bob:***@example.org"
    assert not gate.hides_personal_data
    gate.hide_personal_data(Rules())
    assert gate.text(said) == "*** of *** <EMAIL>, https://<URL_CREDENTIALS>@example.org"
    assert gate.result(said) == "*** of customer_id <EMAIL>, https://<URL_CREDENTIALS>@example.org"
    assert gate.data({"to": [said], "jane@example.org": 1}) == {"to": [gate.result(said)], "<EMAIL>": 1}


def test_rules_of_several_projects_hold_together(gate: Gate) -> None:
    gate.hide_personal_data(Rules(entities=("email",)))
    gate.hide_personal_data(Rules(entities=("ip",), allow=("*@example.org",)))
    assert gate.text("jane@example.org 8.8.8.8") == "<EMAIL> <IP>"


def test_values_are_admitted_with_their_personal_data(gate: Gate) -> None:
    gate.hide_personal_data(Rules())
    assert gate.admit(b'"jane@example.org"', "input") == b'"jane@example.org"'
