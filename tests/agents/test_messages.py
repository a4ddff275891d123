from __future__ import annotations

from flujo.agents import messages
from flujo.agents.messages import of_thread
from flujo.domain import canonical
from flujo.domain.conversations import ToolCall, ToolResult
from flujo.domain.threads import Exchange


def test_a_stored_response_has_no_usage_and_nothing_that_the_journal_refuses() -> None:
    said = {
        "kind": "response",
        "usage": {"input_tokens": 1},
        "model_name": None,
        "parts": [
            {"part_kind": "text", "content": "a\0b\ud800", "id": None},
            {"part_kind": "tool-call", "tool_name": "f", "args": {"n": 2**70}, "tool_call_id": "1"},
        ],
    }
    stored = messages.storable(said)
    canonical.encode(stored)
    assert stored["parts"][0] == {"part_kind": "text", "content": "a\ufffdb\ufffd"}
    assert messages.is_changed(stored)
    assert stored.keys() == {"kind", "parts", "metadata"}
    (call,) = messages.calls_in(stored)
    assert call.arguments == f'{{"n": {2**70}}}', "it is refused as text"


def test_a_stored_text_is_the_text_of_the_model_unless_it_is_marked() -> None:
    whole = messages.storable(messages.from_model("a\ufffdb"))
    assert not messages.is_changed(whole)
    assert messages.text_in(whole) == "a\ufffdb"


def test_arguments_are_data_when_they_are_json() -> None:
    calls = [ToolCall("f", given, "1") for given in ('{"a": 1}', {"a": 1}, "", None)]
    read = messages.calls_in(messages.from_model(calls=calls))
    assert [call.arguments for call in read] == [{"a": 1}, {"a": 1}, {}, {}]


def test_the_text_of_a_response_leaves_out_its_reasoning() -> None:
    parts = [{"part_kind": "thinking", "content": "hm"}, {"part_kind": "text", "content": "yes"}]
    assert messages.text_in({"kind": "response", "parts": parts}) == "yes"


def test_results_go_back_in_the_order_of_the_calls() -> None:
    calls = [ToolCall("a", {}, "1"), ToolCall("b", {}, "1")]
    sent = messages.MessageWriter().results(
        [(calls[0], ToolResult(1)), (calls[1], ToolResult("no", "error"))]
    )
    assert [(part["tool_name"], part["content"], part["outcome"]) for part in sent["parts"]] == [
        ("a", 1, "success"),
        ("b", "no", "failed"),
    ]


def test_a_thread_has_names_for_the_exchanges_of_others_and_roles_for_its_own() -> None:
    history = [
        Exchange("writer", "Draft.", "A draft."),
        Exchange("critic", "Judge.", "Too long."),
        Exchange("me", "Edit.", "Edited.", is_own=True),
        Exchange("me", "Say nothing.", "", is_own=True),
        Exchange("writer", "More.", "More text."),
    ]
    seen = [(each["kind"], [part["content"] for part in each["parts"]]) for each in of_thread(history)]
    assert seen == [
        (
            "request",
            [
                "[user to writer]\nDraft.",
                "[writer]\nA draft.",
                "[user to critic]\nJudge.",
                "[critic]\nToo long.",
                "Edit.",
            ],
        ),
        ("response", ["Edited."]),
        ("request", ["Say nothing.", "[user to writer]\nMore.", "[writer]\nMore text."]),
    ]
