"""Each rule has a bad case, a similar good case, and an explanation in the docs."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import flujo.blueprint
from bad import composite_cases, corpus, flow_cases, listed, meaning_cases, model_cases, sharing_cases
from flujo.blueprint.diagnostics import RULES
from good.corpus import CASES
from good.flow_cases import GOOD_FLOW
from good.look_alikes import LOOK_ALIKES
from good.meaning_cases import GOOD
from good.model_cases import GOOD_MODELS
from good.sharing_cases import SHARED

for module in pkgutil.walk_packages(flujo.blueprint.__path__, "flujo.blueprint."):
    importlib.import_module(module.name)

TABLES = (composite_cases, corpus, flow_cases, listed, meaning_cases, model_cases, sharing_cases)
BAD = {
    getattr(case, "code", None) or getattr(case, "slug", None)
    for table in TABLES
    for held in vars(table).values()
    if isinstance(held, list | tuple)
    for case in held
}
GOOD_NAMES = {*CASES, *GOOD, *GOOD_FLOW, *GOOD_MODELS, *SHARED}
PAGE = (Path(__file__).parents[3] / "docs/reference/diagnostics.md").read_text("utf-8")


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_rule_has_a_bad_case_a_good_one_an_explanation_and_a_place_on_the_page(code: str) -> None:
    rule = RULES[code]
    assert {code, rule.slug} & BAD, f"add a case that breaks {code} ({rule.slug}) to a table in tests/bad"
    assert LOOK_ALIKES.get(code) in GOOD_NAMES, f"name a look-alike of {code} in tests/good/look_alikes.py"
    for part in ("What it finds", "Why it matters", "Example", "Write instead"):
        _, _, said = rule.explanation.partition(f"## {part}\n\n")
        assert said.split("\n## ")[0].strip(), f"{code} says nothing under {part!r}"
    assert f'<a id="{code.lower()}"></a>' in PAGE, "run `python docs/generate.py`"


def test_every_look_alike_has_an_existing_rule() -> None:
    assert set(LOOK_ALIKES) <= set(RULES)
