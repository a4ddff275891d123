"""Differences from a lock: prompts, models, tools, schemas and steps, and the affected steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.lock.diff import changes
from flujo.blueprint.lock.messages import affected, sentence
from flujo.blueprint.lock.model_pinning import is_floating
from flujo.blueprint.lock.snapshot import Environment, contents
from flujo.blueprint.lock.word_diff import shortened, words
from flujo.blueprint.schemas import diff
from flujo.blueprint.sources.source_files import PinnedSource

if TYPE_CHECKING:
    from flujo.blueprint.lock.diff import Change
    from flujo.blueprint.lock.snapshot import Contents

FILES = {
    "sort.yaml": """\
version: "1"
name: sort
budget: {total_cost_usd_limit: 1.0}
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
agents:
  sorter:
    model: openai:small
    instructions: Sort tickets. Be short.
    output_schema: {type: object, required: [label], properties: {label: {enum: [bug, other]}, why: {type: string}}}
    model_settings: {temperature: 0, max_tokens: 9}
    tools: [skills.crm:lookup]
  unused: {model: openai:other}
steps:
  - {name: first, agent: sorter}
  - kind: conditional
    name: again
    if: steps.first.output.label == "bug"
    then: [{name: second, agent: sorter, input: "Again"}]
  - {kind: import, name: sub, blueprint: ./answer.yaml}
""",
    "answer.yaml": """\
version: "1"
name: answer
agents: {writer: {model: local:tiny, instructions: Write., model_settings: {max_tokens: 9}}}
steps: [{name: write, agent: writer}, {name: note, call: "skills.crm:note"}]
""",
    "skills/crm.py": "def lookup(email): ...\n\n\ndef note(data): ...\n",
}


def held(
    files: dict[str, str], *entries: str, environments: dict[str, Environment] | None = None
) -> Contents:
    source = PinnedSource({name: text.encode() for name, text in files.items()})
    trees = {}
    for entry in entries or ("sort.yaml", "answer.yaml"):
        compiled = compile_blueprint(entry, source, allow_callables=["skills.*"])
        assert compiled.pipeline is not None, compiled.diagnostics
        trees[entry] = compiled.pipeline
    return contents(trees, source, environments)


def changed(path: str, old: str, new: str) -> list[Change]:
    """Return the differences after a file is edited."""
    assert old in FILES[path]
    return changes(held(FILES), held(FILES | {path: FILES[path].replace(old, new)}))


def told(path: str, old: str, new: str) -> list[str]:
    return [sentence(each) for each in changed(path, old, new)]


def test_a_lock_does_not_differ_from_itself() -> None:
    assert changes(held(FILES), held(FILES)) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "openai:small",
            "openai:large",
            ['agent \'sorter\' of sort.yaml: `model` was "openai:small" and is "openai:large"'],
        ),
        (
            "temperature: 0",
            "temperature: 1",
            ["agent 'sorter' of sort.yaml: setting `temperature` was 0 and is 1"],
        ),
        (
            "temperature: 0",
            "temperature: 0, env: x",
            ["agent 'sorter' of sort.yaml: setting `env` was nothing and is \"x\""],
        ),
        ("Be short.", "Be long.", ["agent 'sorter' of sort.yaml: the instructions have changed"]),
        (
            "why: {type: string}",
            "sure: {type: boolean}",
            [
                "agent 'sorter' of sort.yaml: `output_schema`: "
                "field `sure` is new (boolean); field `why` was removed (string)"
            ],
        ),
        (
            "why: {type: string}",
            "why: {type: integer}",
            ["agent 'sorter' of sort.yaml: `output_schema`: field `why` was string and is integer"],
        ),
        (
            "total_cost_usd_limit: 1.0",
            "total_cost_usd_limit: 2.5",
            [
                'blueprint sort.yaml: `budget` was {"total_cost_usd_limit": 1.0} '
                'and is {"total_cost_usd_limit": 2.5}'
            ],
        ),
        (
            'input: "Again"',
            'input: "Once more"',
            ['step \'again:then/second\' of sort.yaml: `input` was "Again" and is "Once more"'],
        ),
        (
            'label == "bug"',
            'label == "other"',
            [
                'step \'again\' of sort.yaml: `condition` was "steps.first.output.label == \\"bug\\"" '
                'and is "steps.first.output.label == \\"other\\""'
            ],
        ),
        (
            "[skills.crm:lookup]",
            "[{call: skills.crm:lookup, effect: read}]",
            [
                'agent \'sorter\' of sort.yaml: rules `skills.crm:lookup` was nothing and is {"effect": "read"}'
            ],
        ),
        ("[skills.crm:lookup]", "[{call: skills.crm:lookup}]", []),
        ("openai:other", "openai:never-asked", []),
        ("# nothing", "# nothing at all", []),
    ],
)
def test_a_change_is_described_by_its_meaning(old: str, new: str, words: list[str]) -> None:
    if old.startswith("#"):
        files = FILES | {"sort.yaml": f"{FILES['sort.yaml']}{new}\n"}
        assert changes(held(FILES), held(files)) == []
    else:
        assert told("sort.yaml", old, new) == words


def test_a_change_names_the_affected_steps_of_every_blueprint() -> None:
    assert affected(changed("sort.yaml", "openai:small", "openai:large")) == {
        "sort.yaml": ["again:then/second", "first"]
    }
    assert affected(changed("answer.yaml", "Write.", "Write well.")) == {
        "answer.yaml": ["write"],
        "sort.yaml": ["sub/write"],
    }
    assert affected(changed("sort.yaml", "limit: 1.0", "limit: 2.0")) == {"sort.yaml": []}


def test_changed_code_affects_the_steps_that_call_it_and_the_agents_that_have_it_as_a_tool() -> None:
    found = changed("skills/crm.py", "lookup(email)", "lookup(email, region)")
    assert [sentence(each) for each in found] == snapshot(
        [
            'agent \'sorter\' of sort.yaml: tool `skills.crm:lookup` was "lookup(email)" and is "lookup(email, region)"',
            "callable skills.crm:lookup: the source of its module has changed (1e8b7ac8dad4 → 44268d50a0ff)",
            "callable skills.crm:note: the source of its module has changed (1e8b7ac8dad4 → 44268d50a0ff)",
        ]
    )
    assert [each.counts for each in found] == ["always", "strict", "strict"]
    assert affected(found[2:]) == {"answer.yaml": ["note"], "sort.yaml": ["sub/note"]}
    assert affected(found[1:2]) == {"sort.yaml": ["again:then/second", "first"]}


def test_what_is_bound_to_a_tool_is_locked_and_of_a_secret_the_name() -> None:
    bound = "[{call: skills.crm:lookup, with: {email: %s}}]"
    before = FILES["sort.yaml"].replace("[skills.crm:lookup]", bound % "[a, {secret: MAIL_KEY}]")
    rules = {"with": {"email": ["a", {"secret": "MAIL_KEY"}]}}
    locked = held(FILES | {"sort.yaml": before})
    assert locked["agents"]["sort.yaml"]["sorter"]["tool_rules"] == {"skills.crm:lookup": rules}
    after = before.replace("MAIL_KEY", "OTHER_KEY")
    (found,) = changes(locked, held(FILES | {"sort.yaml": after}))
    assert found.counts == "always"
    assert "OTHER_KEY" in sentence(found)


def test_added_and_removed_entries_are_named() -> None:
    assert told("answer.yaml", ', {name: note, call: "skills.crm:note"}', "") == snapshot(
        [
            'blueprint answer.yaml: `order` was ["write", "note"] and is ["write"]',
            "step 'note' of answer.yaml was removed",
            "callable skills.crm:note is in the lock but no longer called",
        ]
    )
    both, one = held(FILES), held(FILES, "answer.yaml")
    assert [(sentence(each), each.counts) for each in changes(both, one)] == snapshot(
        [
            ("blueprint sort.yaml is in the lock but not in the project", "strict"),
            ("callable skills.crm:lookup is in the lock but no longer called", "strict"),
        ]
    )
    assert [sentence(each) for each in changes(one, both)] == snapshot(
        ["blueprint sort.yaml is not in the lock", "callable skills.crm:lookup is not in the lock"]
    )


def test_a_change_of_one_environment_names_it() -> None:
    base = Environment({}, {"aros.level": 2})
    was = held(FILES, environments={"": base, "dev": Environment({"*": "local:a"}, {"aros.level": 1})})
    now = held(FILES, environments={"": base, "dev": Environment({"sorter": "local:b"}, {"aros.level": 2})})
    assert [sentence(each) for each in changes(was, now)] == snapshot(
        [
            'agent \'writer\' of answer.yaml in [env.dev]: `model` was "local:a" and is "local:tiny"',
            'agent \'sorter\' of sort.yaml in [env.dev]: `model` was "local:a" and is "local:b"',
            "setting aros.level in [env.dev] was 1 and is 2",
        ]
    )


def test_a_manually_edited_prompt_in_the_lock_is_detected() -> None:
    was, now = held(FILES), held(FILES)
    was["agents"]["sort.yaml"]["sorter"]["instructions_sha256"] = "0" * 64
    assert [sentence(each) for each in changes(was, now)] == [
        "agent 'sorter' of sort.yaml: the lock was edited by hand: its instructions do not match their digest"
    ]


# Words ---------------------------------------------------------------------------------------------------


def marked(before: str, after: str) -> str:
    signs = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}", "skipped": "…"}
    return "".join(signs[kind].format(text) for kind, text in shortened(words(before, after)))


def test_changed_words_are_marked() -> None:
    assert marked("Be short. Be kind.", "Be long. Be kind.") == "Be [-short-]{+long+}. Be kind."
    assert marked("Say no to it.", "Say yes, please, to it.") == "Say [-no-]{+yes, please,+} to it."
    assert marked("", "new") == "{+new+}"


def test_a_long_text_is_shortened_around_its_changes() -> None:
    rest = " ".join(f"w{n}" for n in range(100))
    shown = marked(f"{rest} old {rest}", f"{rest} new {rest}")
    assert shown == snapshot("…w94 w95 w96 w97 w98 w99 [-old-]{+new+} w0 w1 w2 w3 w4 w5…")


@given(st.text("ab \n.", max_size=40), st.text("ab \n.", max_size=40))
def test_the_pieces_reconstruct_both_texts(before: str, after: str) -> None:
    pieces = words(before, after)
    assert "".join(text for kind, text in pieces if kind != "added") == before
    assert "".join(text for kind, text in pieces if kind != "removed") == after


# Schemas -------------------------------------------------------------------------------------------------


def test_a_schema_is_compared_field_by_field() -> None:
    before = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer"}}}},
            "e": {"enum": ["x", "y"]},
        },
    }
    after = {
        "type": "object",
        "required": ["b", "d"],
        "additionalProperties": False,
        "properties": {
            "a": {"type": "string", "maxLength": 3},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "number"}}}},
            "d": {"type": "boolean"},
            "e": {"enum": ["y", "z"]},
        },
    }
    assert list(diff.changes(before, after)) == snapshot(
        [
            "field `a`: `maxLength` was nothing and is 3",
            "field `b[].c` was integer and is number",
            "field `d` is new (boolean)",
            'field `e` may be no longer "x", and "z" as well',
            "field `a` is no longer required",
            "field `b` is now required",
            "field `d` is now required",
            "the value: `additionalProperties` was nothing and is false",
        ]
    )


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "properties", "required", "items", "enum", "a"]), inner)
    ),
    max_leaves=10,
)


@given(json, json)
def test_schemas_have_a_described_difference_exactly_if_they_differ(before: object, after: object) -> None:
    assert bool(list(diff.changes(before, after))) == (before != after)


# Models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        "openai:gpt-5-mini-2025-08-07",
        "anthropic:claude-sonnet-4-5-20250929",
        "google:gemini-2.0-flash-001",
        "mistral:mistral-large-2411",
        "bedrock:anthropic.claude-3-5-sonnet-20241022-v2:0",
        "openai:gpt-4-0613",
        "local:smollm2",
        "test:x",
    ],
)
def test_a_model_with_a_release_in_its_name_does_not_float(model: str) -> None:
    assert not is_floating(model)


@pytest.mark.parametrize(
    "model",
    [
        "openai:gpt-5-mini",
        "anthropic:claude-sonnet-4-5",
        "google:gemini-2.5-pro",
        "mistral:mistral-large-latest",
    ],
)
def test_a_name_without_a_release_floats_unless_it_is_allowed(model: str) -> None:
    assert is_floating(model)
    assert not is_floating(model, ["*:*-latest", "openai:*", "anthropic:*", "google:gemini-2.5-pro"])
