"""The lock: readable, deterministic, and errors with line numbers if it is malformed."""

from __future__ import annotations

import random
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.lock import lockfile
from flujo.blueprint.lock.diff import changes
from flujo.blueprint.lock.snapshot import Environment, contents, imports_of, seen_from
from flujo.blueprint.lock.toml_writer import to_toml
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.exceptions import LockUnreadable

if TYPE_CHECKING:
    from flujo.blueprint.lock.snapshot import Contents
    from flujo.domain.pipeline import Pipeline

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
    "skills/crm.py": 'def lookup(email: str) -> dict:\n    """Find a customer."""\n',
}


def source(**changed: str) -> PinnedSource:
    files = FILES | {name.replace("__", "/"): text for name, text in changed.items()}
    return PinnedSource({name: text.encode() for name, text in files.items()})


def tree(files: PinnedSource, entry: str) -> Pipeline:
    compiled = compile_blueprint(entry, files, allow_callables=["skills.*", "far.away"])
    assert compiled.pipeline is not None, compiled.diagnostics
    return compiled.pipeline


def held(files: PinnedSource, *entries: str, **environments: Environment) -> Contents:
    trees = {entry: tree(files, entry) for entry in entries or ("sort.yaml",)}
    return contents(trees, files, environments)


def test_the_text_of_a_lock() -> None:
    base, dev = Environment({}, {"aros.level": 2}), Environment({"*": "local:tiny"}, {"aros.level": 1})
    environments = {"": base, "dev": dev}
    text = lockfile.write(contents({"sort.yaml": tree(source(), "sort.yaml")}, source(), environments))
    assert text == snapshot('''\
# Written by `flujo lock`; review its changes like code. `flujo lock diff` says what they mean.
version = 2

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
output_schema = """
{
  "properties": {
    "label": {
      "type": "string"
    }
  },
  "type": "object"
}
"""
settings = '{"temperature":0}'

[agents."sort.yaml".sorter.env.dev]
model = "local:tiny"

[agents."sort.yaml".sorter.tools]
"skills.crm:lookup" = """
lookup(email: str) -> dict
Find a customer."""

[blueprints."answer.yaml"]
name = "answer"
order = ["write"]

[blueprints."answer.yaml".steps]
write = '{"agent":"writer","kind":"step"}'

[blueprints."sort.yaml"]
name = "sort"
order = ["sort", "sub"]

[blueprints."sort.yaml".steps]
sort = '{"agent":"sorter","kind":"step"}'
sub = '{"blueprint":"answer.yaml","kind":"import","when":"far.away:decide"}'

[callables]
"far.away:decide" = "not in this project"
"skills.crm:lookup" = "97dd34755a8b7be34ffefefda356cb012e85eaaffa72c2cfd2fd013e3163fcc0"

[settings]
"aros.level" = 2

[settings.env.dev]
"aros.level" = 1

# This is the end of the lock.
''')


def test_a_written_lock_is_read_back_unchanged() -> None:
    both = held(source(), "sort.yaml", "answer.yaml", dev=Environment({"writer": "a:b"}))
    assert lockfile.read(lockfile.write(both)) == both
    assert lockfile.digest(lockfile.read(lockfile.write(both))) == lockfile.digest(both)


def test_the_order_of_blueprints_does_not_matter() -> None:
    one, other = held(source(), "sort.yaml", "answer.yaml"), held(source(), "answer.yaml", "sort.yaml")
    assert lockfile.write(one) == lockfile.write(other)


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return YAML data with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_key_order_comments_and_line_ends_do_not_matter(seed: int, crlf: bool, bom: bool) -> None:
    """Two people save the same project with other editors, on other machines."""
    chance = random.Random(seed)
    files = {}
    for path, text in FILES.items():
        if path.endswith(".yaml"):
            again = yaml.safe_dump(shuffled(yaml.safe_load(text), chance), sort_keys=False)
            text = f"# {chance.random()}\n{again}\n# the end\n"
        if crlf:
            text = text.replace("\n", "\r\n")
        files[path] = text.encode("utf-8-sig" if bom and not path.endswith(".py") else "utf-8")
    assert lockfile.write(held(PinnedSource(files))) == lockfile.write(held(source()))


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


def test_agents_and_callables_inside_composites_are_locked() -> None:
    files = PinnedSource({"arms.yaml": ARMS.encode()})
    found = held(files, "arms.yaml")
    assert sorted(found["callables"]) == [
        "skills.choice:choose",
        "skills.items:all",
        "skills.merging:fold",
        "skills.merging:other",
        "skills.rules:over",
        "skills.tools:look",
        "skills.work:a",
        "skills.work:b",
    ]
    assert found["agents"]["arms.yaml"]["chooser"]["tools"] == {"skills.tools:look": "not in this project"}
    assert sorted(found["blueprints"]["arms.yaml"]["steps"]) == snapshot(
        [
            "machine",
            "machine:start/b",
            "route",
            "route:one/each",
            "route:one/each/a",
            "route:two/both",
            "route:two/both:only/r",
        ]
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("      one:\n", "      uno:\n"),
        ("over: skills.items:all", "over: skills.items:some"),
        ('{to: end, when: "skills.rules:over"}', "{to: end}"),
        ("final: [end]", "final: [end, start]"),
        ("{name: a, call", "{name: a, tags: [x], call"),
        ("initial: start", "initial: start\n    max_transitions: 7"),
    ],
)
def test_every_key_of_a_composite_is_locked(old: str, new: str) -> None:
    assert old in ARMS
    before, after = (
        held(PinnedSource({"arms.yaml": text.encode()}), "arms.yaml")
        for text in (ARMS, ARMS.replace(old, new))
    )
    assert before != after


def test_the_order_of_steps_and_of_arms_is_locked() -> None:
    pair = 'version: "1"\nname: pair\nsteps: [{name: a, call: "skills.w:a"}, {name: b, call: "skills.w:b"}]\n'
    turned = (
        'version: "1"\nname: pair\nsteps: [{name: b, call: "skills.w:b"}, {name: a, call: "skills.w:a"}]\n'
    )
    arms = 'version: "1"\nname: arms\nsteps: [{kind: parallel, name: p, branches: {%s}}]\n'
    one, two = 'x: [{name: a, call: "skills.w:a"}]', 'y: [{name: b, call: "skills.w:b"}]'
    for before, after in ((pair, turned), (arms % f"{one}, {two}", arms % f"{two}, {one}")):
        sources = (PinnedSource({"x.yaml": text.encode()}) for text in (before, after))
        was, now = (held(each, "x.yaml") for each in sources)
        assert was["blueprints"] != now["blueprints"]


def test_an_environment_has_its_own_models() -> None:
    environments = {"": Environment({"writer": "a:b"}), "dev": Environment({"*": "local:x"})}
    found = contents({"sort.yaml": tree(source(), "sort.yaml")}, source(), environments)
    models = {
        name: {file: [one["model"] for one in some.values()] for file, some in seen["agents"].items()}
        for name, seen in ((name, seen_from(found, name)) for name in ("", "dev", "gone"))
    }
    assert models == {
        "": {"sort.yaml": ["openai:small"], "answer.yaml": ["a:b"]},
        "dev": {"sort.yaml": ["local:x"], "answer.yaml": ["local:x"]},
        "gone": {"sort.yaml": ["openai:small"], "answer.yaml": ["a:b"]},
    }


TESTED = contents(
    {"sort.yaml": tree(source(), "sort.yaml")}, source(), {"": Environment({}, {"aros.level": 2})}
)
TEXT = lockfile.write(TESTED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = [", "flujo.lock:1: not TOML"),
        ("version = 2\nversion = 2\n", "flujo.lock:2: not TOML: cannot overwrite a value"),
        (TEXT.replace("[callables]\n", "[callables]\n<<<<<<< HEAD\n"), "merge conflict"),
        (TEXT.replace("version = 2", "version = 99"), "flujo.lock:2: the lock has version 99"),
        (TEXT.replace("version = 2", "version = 1"), "has version 1, but this Flujo reads version 2"),
        ("", "flujo.lock:1: the lock has version None"),
        (TEXT[: TEXT.index("[callables]")], "the file is truncated"),
        (TEXT[:400], "flujo.lock:"),
        (TEXT.replace("version = 2", "version = 2\nagents_of = 3"), "unknown key `agents_of`"),
        (TEXT.replace("'{\"temperature\":0}'", "'{'"), "`settings` has a malformed value"),
        (TEXT.replace("[settings]", "[sittings]"), "unknown key `sittings`"),
        (TEXT.replace("[callables]\n", "[callable]\n"), "unknown key `callable`"),
    ],
)
def test_a_malformed_lock_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(LockUnreadable) as caught:
        lockfile.read(text)
    assert said in caught.value.message
    assert caught.value.facts["line"] <= text.count("\n") + 1
    assert caught.value.hint


@given(st.integers(0, len(TEXT) - 1), st.characters(exclude_categories=["Cs"]))
@example(TEXT.index("Be short"), "b")
@example(TEXT.index("openai"), "O")
@example(TEXT.index('"agent"') + 1, "A")
def test_any_damage_is_an_error_or_a_difference(place: int, char: str) -> None:
    damaged = TEXT[:place] + char + TEXT[place + 1 :]
    try:
        found = lockfile.read(damaged)
    except LockUnreadable:
        return
    assert changes(found, TESTED) or found == TESTED  # a comment, or white space
    list(imports_of(found, "sort.yaml"))
    seen_from(found, "dev")


values = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.lists(st.text("ab\n'\"")),
    lambda inner: st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, min_size=1, max_size=3
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4))
def test_written_toml_is_read_back_unchanged(data: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(data)) == data
