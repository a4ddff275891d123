"""Hostile values: JSON values are returned byte for byte, and others are refused by name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, RunStatus, Write
from flujo.exceptions import FlujoError, SettingsError
from flujo.testing.store_suite.examples import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

NASTY_VALUES = (
    None,
    "",
    "@" + "0" * 64,
    "tab\tquote\"'back\\slash\u2028\U0001f4a9\x7f",
    [[], {}, [None, True, 1, 1.0, -0.0, 1e308, 5e-324]],
    {"": 0, "a b": {"$flujo": "__class__", "'; DROP TABLE runs; --": [2**64 - 1, 2**63, -(2**63)]}},
    {"\U0001f9e8": {"👩‍👩‍👧": "e\u0301 \u202e \ufeff \ufffd"}, "ä": "é", "__proto__": {}, "%s": "{}"},
    "x" * 200_000,
    {"rows": [{"n": n, "text": f"row {n} ä"} for n in range(3_000)]},
)
TEN_MB = 10_000_000
UNSTORABLE = ("a\x00b", "\ud800", "\udfff\ud800")


class ValuesSuite:
    """A store keeps each value unchanged, or refuses it with a reason without failing other writes."""

    async def test_hostile_values_are_returned_byte_for_byte(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        values = [canonical.encode(value) for value in NASTY_VALUES]
        given = [
            entry(
                seq, input=value, output=value, patch=value, error=value, detail=value, fingerprint="f" * 64
            )
            for seq, value in enumerate(values, 1)
        ]
        await store.write(writes(run, *given))
        assert await store.entries(RUN) == given

    async def test_hostile_values_of_a_run_are_returned_byte_for_byte(self, store: StateStore) -> None:
        for number, value in enumerate(map(canonical.encode, NASTY_VALUES)):
            given = new_run(f"run-{number}", input=value, context=value)
            run = await store.accept(given, {})
            await store.write(move(run, RunStatus.COMPLETED, output=value, context=value, error=value))
            there = await store.run(run.run_id)
            assert (there.input, there.context, there.context_now) == (value, value, value)
            assert (there.output, there.error) == (value, value)

    async def test_ten_incompressible_megabytes_are_returned_unchanged(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        blocks = [canonical.digest(b"%d" % number) for number in range(TEN_MB // 64)]
        large = canonical.encode("".join(blocks))
        await store.write(writes(run, entry(1, output=large)))
        assert (await store.entries(RUN))[0].output == large

    async def test_questions_and_answers_are_returned_unchanged(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        texts = (
            "",
            "'; DROP TABLE pauses; --",
            "👩‍👩‍👧 \u202e \ufffd",
            "%s {} \\x00 $1 :name",
            "x" * 100_000,
        )
        asked = [Pause(pause_id=StepPath(f"q{n}"), message=text) for n, text in enumerate(texts)]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        for pause in asked:
            answer = canonical.encode({"said": pause.message})
            await store.answer(RUN, pause.pause_id, answer)
        there = await store.pauses(RUN)
        assert [pause.message for pause in there] == list(texts)
        assert [canonical.decode(pause.answer or b"")["said"] for pause in there] == list(texts)

    @pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
    async def test_text_that_no_database_can_hold_is_refused_without_failing_other_writes(
        self, store: StateStore, text: str
    ) -> None:
        run, neighbour = await store.accept(new_run(), {}), await store.accept(new_run("neighbour"), {})
        hostile = [
            store.write(
                Write(run_id=RUN, fence=run.fence, pauses=(Pause(pause_id=StepPath(text), message="?"),))
            ),
            store.write(
                Write(run_id=RUN, fence=run.fence, pauses=(Pause(pause_id=StepPath("q"), message=text),))
            ),
        ]
        good = store.write(writes(neighbour, entry(1)))
        results = await asyncio.gather(*hostile, return_exceptions=True)
        await good
        assert all(isinstance(result, FlujoError) for result in results), results
        assert (await store.entries(RUN), await store.pauses(RUN)) == ([], [])
        assert await store.entries(RunId("neighbour")) == [entry(1)]
        await store.write(writes(run, entry(1)))

    @pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
    async def test_a_run_with_a_name_that_no_database_can_hold_is_refused(
        self, store: StateStore, text: str
    ) -> None:
        for changes in ({"run_id": RunId(text)}, {"user_id": text}, {"pipeline": text}):
            with pytest.raises(FlujoError):
                await store.accept(replace(new_run(), **changes), {})
        assert (await store.accept(new_run(), {})).fence == 1

    async def test_metadata_that_json_cannot_hold_is_refused(self, store: StateStore) -> None:
        values = (float("nan"), float("inf"), 2**70, "a\x00b", "\ud800", {1, 2}, [float("nan")])
        for value in values:
            with pytest.raises(SettingsError):
                await store.accept(new_run(metadata={"key": value}), {})
        metadata = {"int": 2**63, "least": -(2**63), "text": "👩‍👩‍👧", "empty": "", "nested": {"": [None]}}
        assert (await store.accept(new_run(metadata=metadata), {})).metadata == metadata
        assert (await store.run(RUN)).metadata == metadata
