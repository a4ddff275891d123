"""A blueprint is compiled to a tree, and its files form a closure."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad.meaning_cases import CHILD, SKILLS
from flujo.blueprint.closure import Closure
from flujo.blueprint.compiler import Compiled, compile_blueprint
from flujo.blueprint.sources.source_files import FileSource, PinnedSource
from flujo.domain.agents import AgentSpec
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import (
    CallableRef,
    Carry,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    Save,
    Step,
    Text,
)
from flujo.exceptions import CorruptState, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline

ENTRY = "blueprints/all.yaml"
ALL = """\
version: "1"
name: all-kinds
description: One step of each kind
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
context_schema: {properties: {label: {type: string}, notes: {type: array, default: []}}}
agents:
  sorter:
    model: openai:small
    instructions_file: ../prompts/sort.md
    output_schema: {type: object, required: [label], properties: {label: {type: string}}}
    model_settings: {temperature: 0}
    retries: 2
    tool_timeout: 5s
    tools: [skills.crm:lookup]
  plain: {model: local:tiny, instructions: "Write {{ this }}.", template: false, output_type: skills.crm:Ticket}
output: {label: "{{ steps.sort.output.label }}", fixed: [1, true, null, "x"]}
steps:
  - name: sort
    agent: sorter
    input: "Ticket: {{ input.text }}"
    when: "{{ input.text != '' }}"
    save: {label: output.label, notes: {append: output.label}}
    tags: [first]
    config: {timeout_s: 1m, max_retries: 3, retry: {backoff: fixed, initial_s: 2, on: [FLJ302]}, durability: exit}
  - {name: echo, call: "skills.crm:echo", with: {text: "{{ input.text }}"}, output_schema: {type: string}}
  - kind: conditional
    name: fork
    if: skills.crm:plain
    then: [{name: one, agent: plain}]
    else: [{name: two, agent: sorter}]
    output: "{{ previous }}"
  - kind: conditional
    name: route
    switch: steps.echo.output
    branches: {a: [{name: three, agent: sorter}]}
    default: []
  - kind: loop
    name: again
    steps: [{name: try, agent: sorter}]
    until: steps.try.output.label == "ok"
    max_iterations: 4
    on_limit: continue
    carry: {last: {initial: "", next: steps.try.output.label}}
    output: "{{ loop.last }}"
  - {kind: hitl, name: ask, message: "Send {{ previous }}?", answer_schema: {type: boolean}}
  - kind: import
    name: sub
    blueprint: ./child.yaml
    with: {text: "{{ input.text }}", tone: mild}
    on_failure: {output: {sorry: "{{ input.text }}"}}
"""
FILES = {
    ENTRY: ALL,
    "blueprints/child.yaml": CHILD,
    "prompts/sort.md": "Sort {{ input.text }}.\n",
    "skills/crm.py": SKILLS,
}


def pinned(files: Mapping[str, str]) -> PinnedSource:
    return PinnedSource({path: text.encode() for path, text in files.items()})


def compiled(files: Mapping[str, str] = FILES, overrides: Mapping[str, str] | None = None) -> Compiled:
    return compile_blueprint(ENTRY, pinned(files), allow_callables=["skills.*"], overrides=overrides)


def pipeline(files: Mapping[str, str] = FILES) -> Pipeline:
    found = compiled(files)
    assert found.pipeline is not None, [str(one) for one in found.diagnostics]
    return found.pipeline


def steps() -> dict[str, object]:
    return {step.name: step for step in pipeline().steps}


def test_the_top_of_a_blueprint_is_the_pipeline() -> None:
    tree = pipeline()
    assert (tree.name, tree.description) == ("all-kinds", "One step of each kind")
    assert tree.input_schema["required"] == ["text"]
    assert tree.context_schema["properties"]["notes"] == {"type": "array", "default": []}
    assert tree.output == {
        "label": Text("{{ steps.sort.output.label }}"),
        "fixed": (1, True, None, Text("x")),
    }


def test_a_step_has_its_agent_with_all_keys() -> None:
    step = steps()["sort"]
    assert isinstance(step, Step)
    assert step.agent == AgentSpec(
        name="sorter",
        model="openai:small",
        instructions=Text("Sort {{ input.text }}.\n"),
        instructions_file="prompts/sort.md",
        output_schema={"type": "object", "required": ["label"], "properties": {"label": {"type": "string"}}},
        model_settings={"temperature": 0},
        retries=2,
        tool_timeout=5.0,
        tools=(CallableRef("skills.crm:lookup"),),
    )
    assert step.input == Text("Ticket: {{ input.text }}")
    assert step.when == Expr("input.text != ''")
    assert step.save == {
        "label": Save(Expr("output.label")),
        "notes": Save(Expr("output.label"), append=True),
    }
    assert step.tags == ("first",)
    assert step.config.timeout_s == 60.0
    assert step.config.max_retries == 3
    assert step.config.durability == "exit"
    assert step.config.retry == RetryPolicy(backoff="fixed", initial_s=2.0, on=("FLJ302",))


def test_a_step_that_calls_has_its_arguments() -> None:
    step = steps()["echo"]
    assert isinstance(step, Step)
    assert step.call == CallableRef("skills.crm:echo")
    assert step.arguments == {"text": Text("{{ input.text }}")}
    assert step.output_schema == {"type": "string"}
    assert step.agent is None


def test_both_forms_of_a_conditional_are_compiled() -> None:
    fork, route = steps()["fork"], steps()["route"]
    assert isinstance(fork, ConditionalStep)
    assert isinstance(route, ConditionalStep)
    assert (fork.form, fork.condition) == ("if", CallableRef("skills.crm:plain"))
    assert [*fork.bodies()] == ["then", "else"]
    assert fork.default is None
    assert fork.output == Text("{{ previous }}")
    assert (route.form, route.condition) == ("switch", Expr("steps.echo.output"))
    assert [*route.bodies()] == ["a", "default"]
    assert route.default is not None
    assert route.default.steps == ()


def test_a_text_without_template_is_literal() -> None:
    fork = steps()["fork"]
    assert isinstance(fork, ConditionalStep)
    one = fork.branches["then"].steps[0]
    assert isinstance(one, Step)
    assert isinstance(one.agent, AgentSpec)
    assert one.agent.instructions == Text("Write {{ this }}.", literal=True)
    assert one.agent.output_type == CallableRef("skills.crm:Ticket")


def test_a_loop_has_its_condition_its_limit_and_its_variables() -> None:
    loop = steps()["again"]
    assert isinstance(loop, LoopStep)
    assert loop.until == Expr('steps.try.output.label == "ok"')
    assert (loop.max_iterations, loop.on_limit) == (4, "continue")
    assert loop.carry == {"last": Carry(Text(""), Expr("steps.try.output.label"))}
    assert loop.output == Text("{{ loop.last }}")
    assert [step.name for step in loop.body.steps] == ["try"]


def test_a_question_and_an_import_have_their_keys() -> None:
    ask, sub = steps()["ask"], steps()["sub"]
    assert isinstance(ask, HumanInTheLoopStep)
    assert (ask.message, ask.answer_schema) == (Text("Send {{ previous }}?"), {"type": "boolean"})
    assert isinstance(sub, ImportStep)
    assert sub.blueprint == "blueprints/child.yaml"
    assert sub.pipeline.name == "child"
    assert sub.arguments == {"text": Text("{{ input.text }}"), "tone": Text("mild")}
    assert sub.on_failure == {"output": {"sorry": Text("{{ input.text }}")}}


def test_without_with_the_callable_gets_previous() -> None:
    files = {
        ENTRY: 'version: "1"\nname: x\nsteps: [{name: a, call: "skills.crm:plain"}]\n',
        "skills/crm.py": SKILLS,
    }
    step = pipeline(files).steps[0]
    assert isinstance(step, Step)
    assert step.arguments is None


# Overrides -----------------------------------------------------------------------------------------------


def models(found: Compiled) -> dict[str, str]:
    assert found.pipeline is not None
    asked = (step.agent for _, step in found.pipeline.walk() if isinstance(step, Step))
    return {agent.name: agent.model for agent in asked if isinstance(agent, AgentSpec)}


def test_a_model_can_be_overridden_for_one_agent_and_for_all() -> None:
    assert models(compiled()) == {"sorter": "openai:small", "plain": "local:tiny"}
    one = compiled(overrides={"agents.sorter.model": "test:x"})
    assert models(one) == {"sorter": "test:x", "plain": "local:tiny"}
    both = compiled(overrides={"agents.*.model": "test:all", "agents.plain.model": "test:y"})
    assert models(both) == {"sorter": "test:all", "plain": "test:y"}
    assert one.closure.digest != compiled().closure.digest


def test_instructions_can_be_overridden_and_are_part_of_the_closure() -> None:
    def instructions(result: Compiled) -> list[str | None]:
        assert result.pipeline is not None
        agents = [each for _, step in result.pipeline.walk() for each in step.names()]
        told = [(each.name, each.instructions) for each in agents if isinstance(each, AgentSpec)]
        return [text.source for name, text in told if name == "sorter" and text is not None]

    before = compiled()
    after = compiled(overrides={"agents.sorter.instructions": "Be {{ input }}."})
    assert instructions(after) == ["Be {{ input }}."] * len(instructions(after)) != instructions(before)
    assert after.closure.digest != before.closure.digest


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("agents.sortr.model", "did you mean `sorter`"),
        ("agents.sortr.instructions", "did you mean `sorter`"),
        ("agents.*.instructions", "agents.NAME.instructions"),
        ("agents.sorter.tools", "agents.NAME.model"),
        ("steps.sort.agent", "agents.NAME.model"),
        ("model", "agents.NAME.model"),
    ],
)
def test_an_unknown_override_is_refused(key: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compiled(overrides={key: "x"})
    assert words in (caught.value.hint or "")


# Closures ------------------------------------------------------------------------------------------------


def test_a_closure_holds_the_files_that_were_read_and_no_code() -> None:
    closure = compiled().closure
    assert sorted(closure.files) == ["blueprints/all.yaml", "blueprints/child.yaml", "prompts/sort.md"]


def test_a_pinned_closure_gives_the_same_tree_and_the_same_digest() -> None:
    first = compiled(overrides={"agents.*.model": "test:x"})
    stored = first.closure.blobs()
    assert first.closure.digest in stored
    again = Closure.load(stored[first.closure.digest], stored)
    assert again == first.closure
    second = compile_blueprint(
        again.entry, PinnedSource(again.files), allow_callables=["skills.*"], overrides=again.overrides
    )
    assert second.pipeline == first.pipeline
    assert second.closure.digest == first.closure.digest


def test_a_closure_with_a_file_missing_is_corrupt() -> None:
    closure = compiled().closure
    manifest = closure.manifest()
    with pytest.raises(CorruptState) as caught:
        Closure.load(manifest, {closure.digest: manifest})
    assert "blueprints/all.yaml" in caught.value.message


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1), st.binary(), max_size=4
    ),
    st.dictionaries(st.sampled_from(["agents.*.model", "agents.a.model"]), st.just("x:y")),
)
def test_every_closure_is_restored_unchanged(files: dict[str, bytes], overrides: dict[str, str]) -> None:
    closure = Closure("a.yaml", files, overrides)
    assert Closure.load(closure.manifest(), closure.blobs()) == closure


def test_a_changed_file_changes_the_digest_and_the_order_of_reading_does_not() -> None:
    closure = compiled().closure
    turned = Closure(closure.entry, dict(reversed(list(closure.files.items()))))
    assert turned.digest == closure.digest
    assert compiled({**FILES, "prompts/sort.md": "Sort."}).closure.digest != closure.digest


# What cannot be compiled ---------------------------------------------------------------------------------


def test_a_missing_blueprint_is_one_finding() -> None:
    found = compile_blueprint("blueprints/none.yaml", PinnedSource({}))
    assert found.pipeline is None
    assert [one.code for one in found.diagnostics] == ["FLJ221"]


def test_an_unreadable_blueprint_has_findings_of_the_reader() -> None:
    found = compile_blueprint("a.yaml", PinnedSource({"a.yaml": b"steps: [}"}))
    assert found.pipeline is None
    assert found.diagnostics
    assert all(one.code.startswith("FLJ1") for one in found.diagnostics)


def test_a_prompt_that_is_not_text_is_refused() -> None:
    source = PinnedSource(
        {
            "a.yaml": b'version: "1"\nname: x\nagents: {a: {model: b:c, instructions_file: ./p.md}}\n'
            b"steps: [{name: s, agent: a}]\n",
            "p.md": b"caf\xe9",
        }
    )
    found = compile_blueprint("a.yaml", source)
    assert [(one.code, str(one.span)) for one in found.diagnostics] == [("FLJ102", "p.md:1:4")]
    assert "byte 0xE9" in found.diagnostics[0].message


@given(st.binary(max_size=300))
def test_the_compiler_never_raises(data: bytes) -> None:
    found = compile_blueprint("a.yaml", PinnedSource({"a.yaml": data}))
    assert found.pipeline is not None or any(one.is_error for one in found.diagnostics)


# What compiling must not do ------------------------------------------------------------------------------

WATCH = """
import sys
from pathlib import Path
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.lock.diff import changes
from flujo.blueprint.lock.snapshot import contents
from flujo.blueprint.lock.lockfile import read, write
from flujo.blueprint.sources.source_files import FileSource, PinnedSource

b"x".decode("utf-8-sig")  # what is loaded late is loaded now, before anybody watches
compile_blueprint("a.yaml", PinnedSource({"a.yaml": sys.argv[2].encode()}))
seen = []
def watch(event, args):
    if event == "import" and args[0].split(".")[0] in ("skills", "markers"):
        seen.append((event, args[0]))
    elif event == "open" and isinstance(args[2], int) and args[2] & 3:
        seen.append((event, args[0]))
    elif event.split(".")[0] in ("socket", "subprocess", "os") and event not in ("os.listdir", "os.scandir"):
        seen.append((event, args))
    elif event in ("exec", "ctypes.dlopen"):
        seen.append((event, args))
sys.addaudithook(watch)
root = Path(sys.argv[1])
compiled = compile_blueprint("blueprints/all.yaml", FileSource(root), allow_callables=["skills.*"])
assert compiled.pipeline is not None, compiled.diagnostics
now = contents({"blueprints/all.yaml": compiled.pipeline}, FileSource(root))
assert changes(read(write(now)), now) == []
assert not seen, seen
assert not [name for name in sys.modules if name.split(".")[0] in ("skills", "pydantic_ai", "sqlalchemy")]
"""


def test_compiling_and_locking_import_write_and_open_nothing(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    with (tmp_path / "skills/crm.py").open("a") as file:
        file.write("open('marker', 'w').close()\n")
    (tmp_path / "skills/__init__.py").write_text("raise SystemExit('imported')\n")
    warm = ALL.replace("./child.yaml", "./none.yaml")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCH), str(tmp_path), warm],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blueprints", "prompts", "skills"]


def test_a_project_on_disk_compiles_as_a_pinned_one(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = compile_blueprint(ENTRY, FileSource(tmp_path), allow_callables=["skills.*"])
    assert found.pipeline == pipeline()
    assert found.closure == compiled().closure
