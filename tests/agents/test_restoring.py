"""Pseudonyms in responses: values come back in text, JSON, arguments and streams, and what was not sent stays."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from flujo.agents.outgoing import Door
from flujo.agents.restoring import RestoredStream, restored, restored_message
from flujo.domain.personal_data import Pseudonyms
from personal_data import hard_cases
from personal_data.corpus import sentences
from personal_data.marks import plain

MAIL, ODD = "jane@example.org", 'Jane "J\\" Doe\n'
MADE = Pseudonyms(b"k" * 32)
HERS, HIS = MADE.of("email", MAIL), MADE.of("person", ODD)
SENT = {HERS: MAIL, HIS: ODD}


def test_a_pseudonym_follows_from_its_value_kind_and_run() -> None:
    assert Pseudonyms(b"k" * 32).of("email", MAIL) == HERS
    others = {Pseudonyms(b"o" * 32).of("email", MAIL), MADE.of("email", f"{MAIL} "), MADE.of("person", MAIL)}
    assert HERS not in others
    assert len(others) == 3
    assert "k" * 32 not in repr(MADE)


def test_texts_are_restored_as_they_were_and_pseudonyms_are_not_personal_data() -> None:
    texts = [plain(text) for _, text in (*sentences(400), *hard_cases.TEXTS)]
    for text in texts:
        door = Door(pii="tokenise", pseudonyms=MADE)
        shown = door.text(text)
        assert door.text(shown) == Door(pii="scrub").text(shown) == shown
        if "<URL_CREDENTIALS>" not in shown:  # never restored: nothing puts a password into an answer
            assert restored(shown, door.sent) == text
        assert re.sub("_[a-z]{8}>", ">", shown) == Door(pii="scrub").text(text)


def test_values_are_restored_in_text_and_what_was_not_sent_stays() -> None:
    assert restored(f"To {HERS}, {HERS} and <PERSON_9>, <EMAIL_aaaaaaaa> <EMAIL>", SENT) == (
        f"To {MAIL}, {MAIL} and <PERSON_9>, <EMAIL_aaaaaaaa> <EMAIL>"
    )
    assert restored("<KEY_bcdefghi>", {**SENT, "<KEY_bcdefghi>": f"key of {HERS}"}) == f"key of {MAIL}"


def test_values_in_json_stay_json() -> None:
    escaped = HIS.replace("<", "\\u003c").replace(">", "\\u003E")
    text = f'{{"name": "{HIS}", "again": "{escaped}"}}'
    assert json.loads(restored(text, SENT, in_json=True)) == {"name": ODD, "again": ODD}


def test_text_and_arguments_are_restored_and_reasoning_stays() -> None:
    parts: list[dict[str, Any]] = [
        {"part_kind": "thinking", "content": HERS, "signature": "x"},
        {"part_kind": "text", "content": f"Ask {HIS}"},
        {"part_kind": "tool-call", "tool_name": "a", "args": f'{{"to": "{HIS}"}}'},
        {"part_kind": "tool-call", "tool_name": "b", "args": {HERS: [HIS, 1]}},
        {"part_kind": "tool-call", "tool_name": "c"},
    ]
    thought, said, text, data, empty = restored_message({"parts": parts}, SENT, in_json=False)["parts"]
    assert thought == parts[0]
    assert said["content"] == f"Ask {ODD}"
    assert json.loads(text["args"]) == {"to": ODD}
    assert data["args"] == {MAIL: [ODD, 1]}
    assert empty == parts[4]


@pytest.mark.parametrize("in_json", [False, True])
async def test_a_stream_holds_a_begun_pseudonym_back(in_json: bool) -> None:
    text = f"a < b, {HERS}\\u003cEMAIL_x {HIS} <EMA"
    for size in (1, 3, 7):
        pieces: list[str] = []

        async def listen(piece: str, pieces: list[str] = pieces) -> None:
            pieces.append(piece)

        stream = RestoredStream(listen, SENT, in_json)
        for start in range(0, len(text), size):
            await stream.more(text[start : start + size])
        await stream.end()
        assert "".join(pieces) == restored(text, SENT, in_json=in_json)
        assert "a " in pieces[0][:2] or size == 1, "other text is not held back"
