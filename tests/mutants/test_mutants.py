"""The named test detects each mutation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mutants.run import ROOT, mutations, verdict

if TYPE_CHECKING:
    from mutants.run import Mutation

QUICK = ("answer_to_any_question", "digest_not_compared", "held_run_claimed")
"""The mutations of `make test`; `make soak` runs all of them."""


@pytest.mark.parametrize("mutation", mutations(), ids=lambda each: each.name)
def test_each_mutation_applies_and_names_an_existing_test(mutation: Mutation) -> None:
    assert mutation.occurrences() == 1, f"{mutation.file} has changed: adapt `old` of {mutation.name}"
    file, _, name = mutation.test.partition("::")
    text = (ROOT / file).read_text("utf-8")
    inherited = "".join(
        page.read_text("utf-8") for page in (ROOT / "src/flujo/testing/store_suite").glob("*.py")
    )
    assert name.rpartition("::")[2] in text + inherited


@pytest.mark.parametrize("mutation", [m for m in mutations() if m.name in QUICK], ids=lambda each: each.name)
def test_the_named_test_detects_the_mutation(mutation: Mutation) -> None:
    assert verdict(mutation) == ""
