"""The lock: readable, the same bytes each time, and able to say in words what differs."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.lockfile import lock, locked, to_toml, verify
from flujo.blueprint.resolver import PinnedSource
from flujo.exceptions import BlueprintError, SettingsError

SORT = """\
version: "1"
name: sort
agents:
  sorter:
    model: openai:small
    instructions: |
      Sort "tickets".
      Be short.
    output_schema: {type: object, properties: {label: {type: string}}}
    model_settings: {temperature: 0}
    tools: [skills.crm:lookup]
steps:
  - {name: sort, agent: sorter}
  - {kind: import, name: sub, blueprint: ./answer.yaml, when: far.away:decide}
"""
ANSWER = """\
version: "1"
name: answer
agents: {writer: {model: local:tiny, instructions_file: ./write.md, retries: 3}}
steps: [{name: write, agent: writer}]
"""
FILES = {
    "sort.yaml": SORT,
    "answer.yaml": ANSWER,
    "write.md": "Write it.\nKindly.\n",
    "skills/crm.py": "def lookup(email): ...\n",
}


def source(**changed: str) -> PinnedSource:
    files = FILES | {name.replace("__", "/"): text for name, text in changed.items()}
    return PinnedSource({name: text.encode() for name, text in files.items()})


def compiled(files: PinnedSource, *entries: str) -> list[Compiled]:
    allow = ["skills.*", "far.away"]
    return [compile_blueprint(entry, files, allow_callables=allow) for entry in entries or ("sort.yaml",)]


def changed(path: str, old: str, new: str) -> list[str]:
    """Return what differs from the lock when a file is edited."""
    text = lock(compiled(source()), source())
    files = dict(source().files)
    assert old.encode() in files[path]
    files[path] = files[path].replace(old.encode(), new.encode())
    now = PinnedSource(files)
    return verify(text, compiled(now), now)


def test_a_lock_reads_like_this() -> None:
    assert lock(compiled(source()), source()) == snapshot('''\
# Written by `flujo lock`; review its changes like code. `flujo lock verify` says what differs.
version = 1

[agents."answer.yaml".writer]
instructions = """
Write it.
Kindly.
"""
instructions_sha256 = "1104fd3c4598349f7ea599aa41b41bdf28536ee479538cc4e68416f21c600845"
model = "local:tiny"
settings = '{"retries":3}'

[agents."sort.yaml".sorter]
instructions = """
Sort "tickets".
Be short.
"""
instructions_sha256 = "4202529d4308191502356d02f0f4229c5347aec5200900059290c4b8cdc8bba3"
model = "openai:small"
output_schema_sha256 = "20991ec9dfe1e366c2954b5db18fb58bbf790b7c1ae71d04f26ed5255262a29d"
settings = '{"temperature":0}'
tools = ["skills.crm:lookup"]

[blueprints."sort.yaml"]
closure = "d29b4a2476672931fdc5a3d5f0e8e7fcb310e9092f212a45b8654bf9b5c653c7"
name = "sort"

[blueprints."sort.yaml".files]
"answer.yaml" = "59e4831f343568eb42344c8519c4f995d3f3a67541bfc20c8b66823deee28c39"
"sort.yaml" = "1897c3fe8bb20e2b65219b49aa13d904bcb0987b62365d6f64131438f7d6408a"
"write.md" = "1104fd3c4598349f7ea599aa41b41bdf28536ee479538cc4e68416f21c600845"

[callables]
"far.away:decide" = "not in this project"
"skills.crm:lookup" = "ae3363e52dfecc822fb8cbd0204efadb4b945bbca371da9dc3c2489a9491fa8d"
''')


def test_the_same_blueprints_give_the_same_bytes_in_any_order() -> None:
    one = lock(compiled(source(), "sort.yaml", "answer.yaml"), source())
    other = lock(compiled(source(), "answer.yaml", "sort.yaml"), source())
    assert one == other
    assert tomllib.loads(one)["version"] == 1


def test_nothing_differs_from_a_fresh_lock() -> None:
    text = lock(compiled(source(), "sort.yaml", "answer.yaml"), source())
    assert verify(text, compiled(source(), "answer.yaml", "sort.yaml"), source()) == []


def test_a_lock_says_which_closures_it_holds() -> None:
    both = compiled(source(), "sort.yaml", "answer.yaml")
    assert locked(lock(both, source())) == {one.closure.entry: one.closure.digest for one in both}


def test_changed_instructions_are_shown_line_by_line() -> None:
    assert changed("sort.yaml", "Be short.", "Be long.") == snapshot(
        [
            "blueprint sort.yaml: sort.yaml has changed",
            """\
agent 'sorter' of sort.yaml: the instructions have changed
  -Be short.
  +Be long.\
""",
        ]
    )


def test_a_changed_prompt_file_names_the_file_and_the_agent() -> None:
    assert changed("write.md", "Kindly", "Firmly") == snapshot(
        [
            "blueprint sort.yaml: write.md has changed",
            """\
agent 'writer' of answer.yaml: the instructions have changed
  -Kindly.
  +Firmly.\
""",
        ]
    )


def test_a_changed_model_setting_and_schema_are_told_apart() -> None:
    assert changed("sort.yaml", "openai:small", "openai:large")[1:] == [
        "agent 'sorter' of sort.yaml: model was 'openai:small' and is 'openai:large'"
    ]
    assert changed("sort.yaml", "temperature: 0", "temperature: 1")[1:] == [
        """agent 'sorter' of sort.yaml: settings was '{"temperature":0}' and is '{"temperature":1}'"""
    ]
    assert changed("sort.yaml", "type: string", "type: integer")[1:] == [
        "agent 'sorter' of sort.yaml: the output schema has changed"
    ]


def test_a_closure_that_was_edited_by_hand_is_said_to_be() -> None:
    held = compiled(source())
    text = lock(held, source()).replace(held[0].closure.digest, "0" * 64)
    assert verify(text, held, source()) == ["blueprint sort.yaml: its closure in the lock was edited by hand"]


def test_changed_code_is_found_by_its_source() -> None:
    assert changed("skills/crm.py", "...", "return 1") == snapshot(
        ["callable skills.crm:lookup: the source of its module has changed"]
    )


def test_what_was_added_and_what_is_gone_is_named() -> None:
    both = lock(compiled(source(), "sort.yaml", "answer.yaml"), source())
    assert verify(both, compiled(source(), "answer.yaml"), source()) == snapshot(
        [
            "blueprint sort.yaml is in the lock and not in the project",
            "agent 'sorter' of sort.yaml is in the lock and is not asked any more",
            "callable far.away:decide is in the lock and is not called any more",
            "callable skills.crm:lookup is in the lock and is not called any more",
        ]
    )
    one = lock(compiled(source(), "answer.yaml"), source())
    assert verify(one, compiled(source(), "sort.yaml"), source()) == snapshot(
        [
            "blueprint answer.yaml is in the lock and not in the project",
            "blueprint sort.yaml is not in the lock",
            "agent 'sorter' of sort.yaml is not in the lock",
            "callable far.away:decide is not in the lock",
            "callable skills.crm:lookup is not in the lock",
        ]
    )


def test_other_models_for_a_run_are_a_difference() -> None:
    text = lock(compiled(source()), source())
    other = compile_blueprint(
        "sort.yaml",
        source(),
        allow_callables=["skills.*", "far.away"],
        overrides={"agents.*.model": "test:x"},
    )
    assert verify(text, [other], source()) == snapshot(
        [
            "blueprint sort.yaml was locked with nothing as overrides",
            "agent 'writer' of answer.yaml: model was 'local:tiny' and is 'test:x'",
            "agent 'sorter' of sort.yaml: model was 'openai:small' and is 'test:x'",
        ]
    )


ARMS = """\
version: "1"
name: arms
agents: {chooser: {model: a:b, instructions: Choose., tools: [skills.tools:look]}}
steps:
  - kind: router
    name: route
    router: chooser
    merge: skills.merging:fold
    branches:
      one:
        - kind: map
          name: each
          over: skills.items:all
          steps: [{name: a, call: "skills.work:a"}]
      two:
        - kind: parallel
          name: both
          branches: {only: [{kind: router, name: r, router: "skills.choice:choose", branches: {x: []}}]}
          merge: skills.merging:other
  - kind: state_machine
    name: machine
    initial: start
    final: [end]
    states:
      start: {steps: [{name: b, call: "skills.work:b"}], transitions: [{to: end, when: "skills.rules:over"}]}
      end: {}
"""


def test_what_composites_name_is_locked() -> None:
    files = PinnedSource({"arms.yaml": ARMS.encode()})
    held = tomllib.loads(lock(compiled(files, "arms.yaml"), files))
    assert sorted(held["callables"]) == [
        "skills.choice:choose",
        "skills.items:all",
        "skills.merging:fold",
        "skills.merging:other",
        "skills.rules:over",
        "skills.tools:look",
        "skills.work:a",
        "skills.work:b",
    ]
    assert held["agents"]["arms.yaml"]["chooser"]["instructions"] == "Choose."


def test_a_blueprint_with_errors_is_not_locked() -> None:
    broken = source(**{"sort.yaml": SORT.replace("agent: sorter", "agent: nobody")})
    with pytest.raises(BlueprintError) as caught:
        lock(compiled(broken), broken)
    assert caught.value.diagnostics


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = [", "not TOML"),
        ("version = 1\nversion = 1\n", "not TOML"),
        ("version = 99\n", "version 99"),
        ("", "version None"),
        ("version = 1\nagents = 3\n", "not what"),
    ],
)
def test_a_text_that_is_no_lock_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        verify(text, compiled(source()), source())
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("held", ['"x"', "{}", '{"sort.yaml" = 3}', '{"sort.yaml" = {files = 1}}'])
def test_a_lock_that_was_tampered_with_differs_and_breaks_nothing(held: str) -> None:
    text = f"version = 1\nblueprints = {held}\n" if held != '"x"' else "version = 1\n"
    assert verify(text, compiled(source()), source())


values = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(-(2**60), 2**60)
    | st.lists(st.text("ab\n")),
    lambda inner: st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, min_size=1, max_size=3
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4))
def test_what_is_written_is_what_toml_reads(contents: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(contents)) == contents
