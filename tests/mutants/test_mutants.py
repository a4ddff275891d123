"""The named test detects each mutation, and every promise has mutations."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from docs.test_reliability import RELIABILITY
from mutants.generated import TABLE, edits, targets
from mutants.run import ROOT, mutations, verdict

if TYPE_CHECKING:
    from mutants.generated import Target
    from mutants.run import Mutation

QUICK = ("digest_not_compared",)
"""The mutations of `make test`; `make soak` runs all of them."""
PARSED = 10
"""One of so many generated edits is parsed: each is made from a tree, and each parse reads a whole file."""


@pytest.mark.parametrize("mutation", mutations(), ids=lambda each: each.name)
def test_each_mutation_applies_and_names_an_existing_test(mutation: Mutation) -> None:
    assert mutation.occurrences() == 1, f"{mutation.file} has changed: adapt `old` of {mutation.name}"
    assert _exists(mutation.test)


def _exists(test: str) -> bool:
    """Return whether a file of tests, or a test that it may inherit from the suite of stores, exists."""
    file, _, name = test.partition("::")
    pages = [ROOT / file, *(ROOT / "src/flujo/testing/store_suite").glob("*.py")]
    return any(name.rpartition("::")[2] in page.read_text("utf-8") for page in pages)


@pytest.mark.parametrize("mutation", [m for m in mutations() if m.name in QUICK], ids=lambda each: each.name)
def test_the_named_test_detects_the_mutation(mutation: Mutation) -> None:
    assert verdict(mutation) == ""


@pytest.mark.parametrize("guarantee", RELIABILITY.GUARANTEES)
def test_each_guarantee_has_mutations_by_hand_and_generated_ones(guarantee: str) -> None:
    by_hand = [each.name for each in mutations() if guarantee in each.guarantees]
    generated = {
        str(edit) for target in targets() if target.guarantee == guarantee for edit in target.edits()
    }
    assert len(by_hand) >= 3
    assert len(by_hand) + len(generated) >= 5


@pytest.mark.parametrize("target", targets(), ids=lambda each: f"{each.guarantee} {each.file}")
def test_each_generated_edit_can_be_parsed_and_its_tests_exist(target: Target) -> None:
    source = (ROOT / target.file).read_bytes()
    every = target.edits()
    assert all(edit.old != edit.new for edit in every)
    for edit in every[::PARSED]:
        ast.parse(edit.made(source), str(edit))
    assert all(map(_exists, target.tests))


@pytest.mark.parametrize("equivalent", TABLE["equivalent"], ids=lambda each: each["edit"])
def test_each_equivalent_edit_exists_and_has_a_reason(equivalent: dict[str, str]) -> None:
    function = equivalent["edit"].partition(":")[0]
    source = (ROOT / equivalent["file"]).read_text("utf-8")
    assert equivalent["edit"] in {str(edit) for edit in edits(equivalent["file"], source, [function])}
    assert equivalent["reason"]


def test_the_generated_edits_of_a_function() -> None:
    source = (
        "def keep(run, limit):\n"
        "    if not run.open and run.age < limit:\n"
        "        run.close(run, 1)\n"
        "        run.close(run, 1)\n"
        "        log.info('closed', run)\n"
        "    return max(run, limit)\n"
    )
    assert sorted(map(str, edits("a.py", source, ["keep"]))) == [
        "keep: 1 -> 2",
        "keep: 1 -> 2 (2)",
        "keep: not run.open -> (run.open)",
        "keep: not run.open and run.age < limit -> (not (not run.open and run.age < limit))",
        "keep: not run.open and run.age < limit -> (not run.open or run.age < limit)",
        "keep: return max(run, limit) -> return None",
        "keep: run.age < limit -> (run.age <= limit)",
        "keep: run.close(run, 1) -> pass",
        "keep: run.close(run, 1) -> pass (2)",
        "keep: run.close(run, 1) -> run.close(1, run)",
        "keep: run.close(run, 1) -> run.close(1, run) (2)",
    ]
