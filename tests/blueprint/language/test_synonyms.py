"""Words of other tools lead to keys and kinds that exist."""

from __future__ import annotations

import pytest

from flujo.blueprint.language import models, synonyms
from flujo.blueprint.language.model_lookup import keys_of

TABLES = {
    models.Agent: synonyms.OF_AGENTS,
    models.Blueprint: synonyms.OF_BLUEPRINTS,
    models.Config: synonyms.OF_CONFIG,
    models.ConditionalStep: synonyms.OF_CONDITIONALS,
}


@pytest.mark.parametrize("model", TABLES, ids=lambda model: str(model.__name__))
def test_a_synonym_leads_to_a_key_and_is_not_one(model: type[models.Strict]) -> None:
    words = TABLES[model]
    keys = {*keys_of(model), *keys_of(models.Step)} if model is models.ConditionalStep else {*keys_of(model)}
    assert {each.meant for each in words.values() if each.meant is not None} <= keys
    assert all(each.hint for each in words.values())
    assert not words.keys() & {*keys_of(model)} - {"if"}


def test_a_kind_of_another_tool_leads_to_one_here() -> None:
    assert set(synonyms.KINDS.values()) <= models.KINDS.keys()
    assert not synonyms.KINDS.keys() & models.KINDS.keys()
