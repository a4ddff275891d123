"""All errors of a file are reported at once, without findings that only follow from others."""

import copy
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.diagnostics import Severity
from flujo.blueprint.sources.source_files import PinnedSource

ENTRY = "blueprints/case.yaml"
SKILLS = "def echo(text): ...\ndef plain(data): ...\n"
HEAD = """\
version: "1"
name: case
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
context_schema: {properties: {label: {type: string}}}
agents:
  sorter: {model: a:b, output_schema: {type: object, required: [label], properties: {label: {enum: [bug, refund]}}}}
steps:
  - {name: sort, agent: sorter, input: "{{ input.text }}"}
"""
"""Eight lines without an error."""


def _compiled(text: str, **files: str) -> Compiled:
    texts = {ENTRY: text, "skills/crm.py": SKILLS}
    texts |= {f"blueprints/{name}.yaml": data for name, data in files.items()}
    source = PinnedSource({path: data.encode() for path, data in texts.items()})
    return compile_blueprint(ENTRY, source, allow_callables=["skills.*"])


def _said(text: str, **files: str) -> list[str]:
    """Return place, code and message of all findings; no pipeline is built."""
    found = _compiled(text, **files)
    assert found.pipeline is None
    said = []
    for one in found.diagnostics:
        file = "" if one.span.file == ENTRY else f"{Path(one.span.file).name}:"
        said.append(f"{file}{one.span.line}:{one.span.column} {one.code} {one.message}")
    return said


# Mixed files ---------------------------------------------------------------------------------------------


def test_the_other_keys_beside_an_unknown_key_are_checked() -> None:
    text = HEAD + '  - {name: more, agent: sortr, foo: 1, input: "{{ input.txt }}"}\n'
    text += (
        '  - {name: last, agent: sorter, input: "{{ steps.sort.output.lable }} {{ steps.more.output.x }}"}\n'
    )
    assert _said(text) == snapshot(
        [
            "9:25 FLJ201 step 'more' uses agent 'sortr', which is not in `agents:`",
            "9:32 FLJ120 `foo` is not a key of a step",
            "9:57 FLJ204 `input` has no `txt`",
            "10:62 FLJ204 `steps.sort.output` has no `lable`",
        ]
    )


def test_a_misspelt_key_is_treated_as_the_intended_one() -> None:
    text = HEAD + "  - kind: loop\n    name: l\n    untl: steps.a.output.okk\n    steps:\n"
    text += '      - {name: a, agent: sorter, input: "{{ input.txt }}"}\n'
    text += '  - {name: last, call: "skills.crm:nope", with: {text: "{{ steps.l.exhausted }}"}}\n'
    assert _said(text) == snapshot(
        [
            "11:5 FLJ120 `untl` is not a key of a step of kind `loop`",
            "11:26 FLJ204 `steps.a.output` has no `okk`",
            "13:51 FLJ204 `input` has no `txt`",
            "14:24 FLJ251 `skills/crm.py` does not define `nope`",
        ]
    )


def test_the_steps_inside_an_invalid_step_are_checked() -> None:
    wrong = '[{name: x, agent: sorter, input: "{{ input.txt }}"}]'
    text = HEAD + f"  - {{kind: map, name: m, as: 'a b', steps: {wrong.replace('input.txt', 'one.y')}}}\n"
    text += f"  - {{kind: lopp, name: l, until: 'true', steps: {wrong}}}\n"
    text += f"  - {{kind: conditional, name: c, then: {wrong}}}\n"
    text += f"  - {{kind: parallel, name: p, branches: {{a: 5, b-c: {wrong}}}}}\n"
    text += f"  - {{kind: state_machine, name: s, states: {{a: {{steps: {wrong}, transitions: [{{too: b}}]}}, b: 5}}}}\n"
    assert _said(text) == snapshot(
        [
            "9:5 FLJ121 a step of kind `map` needs `over`",
            "9:30 FLJ124 'a b' is not a valid name",
            "10:12 FLJ123 unknown kind of step `lopp`",
            "10:92 FLJ204 `input` has no `txt`",
            "11:5 FLJ121 conditional `c` has no condition",
            "11:83 FLJ204 `input` has no `txt`",
            "12:45 FLJ122 `a` must be a list, not a number",
            "12:96 FLJ204 `input` has no `txt`",
            "13:5 FLJ121 a step of kind `state_machine` needs `final`",
            "13:5 FLJ121 a step of kind `state_machine` needs `initial`",
            "13:99 FLJ204 `input` has no `txt`",
            "13:125 FLJ120 `too` is not a key of `transitions`",
            "13:139 FLJ122 `b` must be a mapping, not a number",
        ]
    )


def test_unreadable_names_are_not_reported_as_missing() -> None:
    text = HEAD + "  - {agent: sorter}\n  - {name: b c, agent: sorter}\n"
    text += '  - {name: z, agent: sorter, input: "{{ steps.q.output }} {{ steps.sort.output.lable }}"}\n'
    assert _said(text) == snapshot(
        [
            "9:5 FLJ121 a step needs `name`",
            "10:12 FLJ124 'b c' is not a valid name",
            "11:80 FLJ204 `steps.sort.output` has no `lable`",
        ]
    )


def test_all_findings_at_the_top_and_about_agents_are_reported_at_once() -> None:
    text = """\
version: 2
name: case
input_schema: {type: objet}
contxt_schema: {properties: {label: {type: string}}}
agents:
  my-sorter: {model: a:b}
  helper: {modl: a:b, retries: -1}
  idle: {model: 5}
steps:
  - {name: sort, agent: my_sorter, input: "{{ input.text }} {{ context.lable }}"}
  - {name: again, agent: helper, input: "{{ steps.sort.output.label }}"}
  - {name: again, agent: nobody, config: {timeout_s: -1, max_retries: x}}
"""
    assert _said(text) == snapshot(
        [
            '1:10 FLJ129 unsupported language version `2`; this Flujo reads version "1"',
            "3:22 FLJ140 `objet` is not a type of JSON Schema",
            "4:1 FLJ120 `contxt_schema` is not a key of a blueprint",
            "6:3 FLJ124 'my-sorter' is not a valid name",
            "7:12 FLJ120 `modl` is not a key of an agent",
            "7:32 FLJ125 `retries` must be at least 0",
            "8:17 FLJ122 `model` must be a text, not a number",
            "10:72 FLJ204 `context` has no `lable`",
            "12:12 FLJ210 two steps of one list are called 'again': the second is 'again'",
            "12:54 FLJ126 a duration must be greater than 0, got -1",
            "12:71 FLJ122 `max_retries` must be a whole number, not `x`",
        ]
    )


def test_yaml_errors_hide_only_findings_on_their_own_lines() -> None:
    text = HEAD + '  - {name: a, agent: sorter, agent: other, input: "{{ input.txt }}"}\n'
    text += '  - {name: b, agent: sorter, input: *x, when: "input.txt"}\n'
    text += '  - {name: c, agent: sorter, input: "{{ steps.b.output.foo }}", when: off}\n'
    text += 'output: "{{ steps.c.output.labl }}"\n'
    assert _said(text) == snapshot(
        [
            "9:30 FLJ111 the key `agent` is defined here and on line 9",
            "10:37 FLJ108 an alias (`*name`) is not allowed",
            '11:71 FLJ115 YAML parsers read `off` differently; Flujo reads it as the text "off"',
            "12:28 FLJ204 `steps.c.output` has no `labl`",
        ]
    )


def test_findings_behind_a_wrong_type_are_reported_too() -> None:
    text = HEAD + "  - {name: g, agent: sorter, call: 'skills.crm:plain', tags: 5}\n  - 7\n"
    assert _said(text) == snapshot(
        [
            "9:30 FLJ127 `agent` and `call` exclude each other",
            "9:62 FLJ122 `tags` must be a list, not a number",
            "10:5 FLJ122 an entry of `steps` must be a mapping, not a number",
        ]
    )


def test_a_misspelt_kind_is_one_finding() -> None:
    text = (
        HEAD
        + "  - {knd: loop, name: l, until: 'true', max_iterations: 3, steps: [{name: a, agent: sorter}]}\n"
    )
    assert _said(text) == snapshot(["9:6 FLJ120 `knd` is not a key of a step"])


def test_an_invalid_import_is_checked_with_the_importing_blueprint() -> None:
    text = HEAD + '  - {kind: import, name: i, blueprint: ./child.yaml, with: {text: "{{ input.txt }}"}}\n'
    text += '  - {name: z, agent: sorter, input: "{{ steps.i.output.x }} {{ steps.sort.output.lable }}"}\n'
    child = HEAD + '  - {name: more, agnet: sortr, input: "{{ input.txt }}"}\n'
    assert _said(text, child=child) == snapshot(
        [
            "9:77 FLJ204 `input` has no `txt`",
            "10:82 FLJ204 `steps.sort.output` has no `lable`",
            "child.yaml:9:18 FLJ120 `agnet` is not a key of a step",
            "child.yaml:9:25 FLJ201 step 'more' uses agent 'sortr', which is not in `agents:`",
            "child.yaml:9:49 FLJ204 `input` has no `txt`",
        ]
    )


def test_an_invalid_file_of_agents_is_checked_with_the_including_blueprint() -> None:
    agents = (
        'version: "1"\nagents:\n  writer: {model: a:b, output_schema: {type: strng}}\n  other: {mdl: a:b}\n'
    )
    text = HEAD.replace("agents:", "include: [./agents.yaml]\nagents:")
    text += '  - {name: w, agent: writer}\n  - {name: o, agent: othr, input: "{{ steps.w.output.text }}"}\n'
    assert _said(text, agents=agents) == snapshot(
        [
            "agents.yaml:3:46 FLJ140 `strng` is not a type of JSON Schema",
            "agents.yaml:4:11 FLJ120 `mdl` is not a key of an agent",
            "11:22 FLJ201 step 'o' uses agent 'othr', which is not in `agents:`",
        ]
    )


# Many mistakes -------------------------------------------------------------------------------------------


def test_of_very_many_errors_the_first_are_shown_with_a_note_about_the_rest() -> None:
    text = HEAD + "".join(f"    key{index}: 1\n" for index in range(5_000))
    found = _compiled(
        text.replace(
            '  - {name: sort, agent: sorter, input: "{{ input.text }}"}', "  - name: sort\n    agent: sorter"
        )
    )
    assert found.pipeline is None
    assert [one.code for one in found.diagnostics if one.is_error] == ["FLJ120"] * 200
    assert [one.code for one in found.diagnostics if not one.is_error] == ["FLJ150"]


def test_a_text_full_of_secrets_is_hidden_in_full_and_reported_a_few_times() -> None:
    secret = "AKIA" + "ABCDEFGH12345678"
    found = _compiled(HEAD + f"description: '{f'{secret} ' * 2_000}'\n")
    assert [one.code for one in found.diagnostics] == ["FLJ230"] * 5
    assert secret not in found.sources[ENTRY]


# Laws ----------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
FILES = {
    path.relative_to(ROOT).as_posix(): path.read_bytes()
    for path in (ROOT / "blueprints").rglob("*")
    if path.suffix in (".yaml", ".py", ".md")
}
EXAMPLES = sorted(path for path, data in FILES.items() if path.endswith(".yaml") and b"\nsteps:" in data)
DATA = frozenset({"with", "input", "output", "model_settings", "answer", "initial"})
"""Keys that hold any data."""
NAMED = frozenset({"agents", "branches", "states", "carry", "save", "field_mapping"})
"""Keys whose mappings have names for keys."""


def _mappings(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of a blueprint's mappings of the language."""
    if isinstance(data, dict):
        yield path
        for key, value in data.items():
            if key not in DATA and not key.endswith("_schema"):
                yield from _mappings(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _mappings(value, (*path, index))


def _mapping(data: Any, path: tuple[Any, ...]) -> tuple[Any, dict[str, Any]]:
    """Return a copy of a blueprint, and its mapping at a place."""
    whole = copy.deepcopy(data)
    here = whole
    for key in path:
        here = here[key]
    return whole, here


def _with_one_mistake(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield a blueprint with one error at a time: each key unknown, misspelt, of a wrong type."""
    for path in _mappings(data):
        is_named = bool(path) and path[-1] in NAMED
        whole, mapping = _mapping(data, path)
        if not is_named:
            mapping["zzqqx"] = 1
            yield f"{path} with an unknown key", whole
        for key in list(_mapping(data, path)[1]):
            whole, mapping = _mapping(data, path)
            if not is_named and len(key) > 3:
                entries = {f"{key}s" if name == key else name: value for name, value in mapping.items()}
                mapping.clear()
                mapping.update(entries)
                yield f"{path} with {key} misspelt", whole
            whole, mapping = _mapping(data, path)
            if key not in DATA:
                mapping[key] = [[3]]
                yield f"{path} with {key} of a wrong type", whole


def _findings(entry: str, data: Any) -> set[tuple[str, str]]:
    source = PinnedSource({**FILES, entry: json.dumps(data).encode()})
    found = compile_blueprint(entry, source, allow_callables=["blueprints.skills.*"])
    assert (found.pipeline is None) == any(one.is_error for one in found.diagnostics)
    return {(one.code, one.message) for one in found.diagnostics if one.severity is not Severity.INFO}


EVERY = int(os.environ.get("FLUJO_CORPUS_STRIDE", "5"))
"""Each fifth mistake is made; `make soak` makes all of them. Of the three kinds of a key each has its turn."""


@pytest.mark.parametrize("entry", EXAMPLES)
def test_one_error_anywhere_in_a_blueprint_is_one_finding(entry: str) -> None:
    data = yaml.safe_load(FILES[entry])
    before = _findings(entry, data)
    for what, broken in islice(_with_one_mistake(data), 0, None, EVERY):
        found = _findings(entry, broken) - before
        assert len(found) == 1, (what, found)


_WORD = st.sampled_from(
    ["name", "steps", "kind", "loop", "if", "then", "else", "branches", "config", "agents", "save", "append", "switch",
     "conditional", "map", "over", "state_machine", "states", "initial", "final", "transitions", "to", "parallel",
     "router", "cache", "step", "call", "m:f", "a", "b", "x y", "agent", "fallback", "input_schema", "type", "with",
     "{{ steps.a.output.b }}", "import", "blueprint", "hitl", "message", "extends", "defaults", "include"]
)  # fmt: skip
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | _WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORD, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(_WORD, _VALUE, max_size=5), st.lists(_VALUE, max_size=4))
def test_any_invalid_file_is_checked_and_never_built(top: dict[str, Any], steps: list[Any]) -> None:
    data = {"version": "1", "name": "x", "steps": [{"name": "a", "call": "m:f"}, *steps]} | top
    found = _compiled(json.dumps(data))
    assert (found.pipeline is None) == any(one.is_error for one in found.diagnostics)
