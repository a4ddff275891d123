from __future__ import annotations

from typing import Any

import pytest

from flujo import Secret
from flujo.domain.secrets import bound, named, revealed, secrets_in
from flujo.domain.tools import CallableTool
from flujo.exceptions import PipelineError

WRITTEN = {"key": {"secret": "BANK_KEY"}, "hosts": [{"token": {"secret": "HOST_1"}}, "a"], "limit": 5}


def test_a_reference_is_a_secret_at_any_depth() -> None:
    held = bound(WRITTEN, "`with`")
    assert held == {"key": Secret("BANK_KEY"), "hosts": ({"token": Secret("HOST_1")}, "a"), "limit": 5}
    assert [each.name for each in secrets_in(held)] == ["BANK_KEY", "HOST_1"]
    assert named(held) == WRITTEN
    assert revealed(held, {"BANK_KEY": "k", "HOST_1": "t"}) == {
        "key": "k",
        "hosts": [{"token": "t"}, "a"],
        "limit": 5,
    }


def test_a_mapping_with_other_keys_is_data() -> None:
    held = bound({"auth": {"secret": "x-1", "user": "ana"}}, "`with`")
    assert list(secrets_in(held)) == []
    assert bound({"secret": "plain"}, "`with`") == {"secret": "plain"}, "a parameter may have this name"


@pytest.mark.parametrize("name", ["", "bank-key", "1KEY", "sk-live 12345", "KEY\n", None, 5])
def test_what_cannot_name_a_variable_is_refused_without_being_shown(name: Any) -> None:
    with pytest.raises(PipelineError, match="by the name of an environment variable") as refused:
        bound({"key": {"secret": name}}, "`with`")
    assert "sk-live" not in str(refused.value)


@pytest.mark.parametrize(
    "given", [{"key": object()}, {"key": float("nan")}, {"key": {1: 2}}, {1: 2}, ["key"]]
)
def test_only_json_data_can_be_bound(given: Any) -> None:
    with pytest.raises(PipelineError, match="`with_`"):
        CallableTool("skills.bank:pay", with_=given)
