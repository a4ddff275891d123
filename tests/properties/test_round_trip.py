"""YAML → tree → YAML: every written tree is read back as an equal tree."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo import (
    AgentSpec,
    AwaitStep,
    CachePolicy,
    CacheStep,
    Carry,
    ConditionalStep,
    ContinueAsNewStep,
    DynamicParallelRouterStep,
    EndStep,
    EventStep,
    GranularStep,
    History,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    MergeStrategy,
    OneOf,
    ParallelStep,
    Pipeline,
    Processors,
    RetryPolicy,
    SetStep,
    SleepStep,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Transition,
    TreeSearchStep,
    UsageLimits,
)
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.language.models import KINDS
from flujo.blueprint.serializer import write_blueprint
from flujo.blueprint.sources.source_files import FileSource, PinnedSource
from flujo.exceptions import PipelineError
from properties.sample import tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.steps import BaseStep

ROOT = Path(__file__).parents[2]
ENTRY = "blueprints/flows/entry.yaml"
CALLABLES = ("skills.x:f", "skills.y:g")
INPUT = {
    "type": "object",
    "required": ["n", "docs"],
    "properties": {"n": {"type": "integer"}, "docs": {"type": "array"}},
}
CONTEXT = {"properties": {"note": {"type": "string"}, "notes": {"type": "array", "default": []}}}
AGENTS = [
    AgentSpec("writer", "a:b", instructions="Write: {{ run.id }}\n- well", model_settings={"temperature": 0}),
    AgentSpec("judge", "c:d", output_schema={"type": "array", "items": {"type": "string"}}, retries=2),
    AgentSpec("reader", "e:f", instructions_file="prompts/read.md", instructions="Read # this: {{ run.id }}"),
    AgentSpec("teller", "e:f", output_type="skills.x:Told", tools=["skills.x:f"], tool_timeout=1.5),
]

asked = st.sampled_from(
    [
        *AGENTS,
        OneOf(AGENTS[:2], by="input.n > 1 ? 'writer' : 'judge'"),
        OneOf(AGENTS[1:], by="skills.x:f"),
    ]
)

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="{}%#"), max_size=12
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
conditions = st.sampled_from(["input.n > 1", 'string(input.n) == "# no: comment"', "true", *CALLABLES])
seconds = st.floats(0.001, 1e6)
callables = st.sampled_from(CALLABLES)
histories = st.builds(History, max_tokens=st.integers(1000, 10**6), keep=st.sampled_from(["last", "summary"]))
reconciled: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {
        "enforce_idempotency": st.just(True),
        "in_doubt": st.just("reconcile"),
        "reconcile": callables,
    }
)
configs = st.builds(
    StepConfig,
    timeout_s=st.none() | seconds | st.just({"value": "input.n", "max": 3}),
    max_retries=st.integers(0, 5),
    retry=st.none()
    | st.builds(RetryPolicy, backoff=st.sampled_from(["none", "fixed"]), on=st.just(("FLJ302",))),
    durability=st.sampled_from([None, "sync", "exit"]),
)
caches = st.none() | st.builds(CachePolicy, key=st.none() | st.just("input.n"), ttl_s=st.none() | seconds)


class Growing:
    """A generated tree: names are unique, and imported pipelines have their own files."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.numbers: Iterator[int] = itertools.count()
        self.has_fields = False
        """Whether the context of the generated pipeline has the field `note`."""

    def name(self, prefix: str = "s") -> str:
        return f"{prefix}{next(self.numbers)}"

    def body(self, depth: int, *, at_least: int = 1) -> list[BaseStep]:
        return [self.step(depth - 1) for _ in range(self.draw(st.integers(at_least, 2)))]

    def bodies(self, depth: int) -> dict[str, list[BaseStep]]:
        return {self.name("b"): self.body(depth, at_least=0) for _ in range(self.draw(st.integers(1, 2)))}

    def _await(self, depth: int, **common: Any) -> BaseStep:
        on_failure = self.draw(st.sampled_from(["fail", "skip", {"output": "{{ input }}"}]))
        if self.draw(st.booleans()):
            return AwaitStep(task="{{ run.id }}", on_failure=on_failure, **common)
        return AwaitStep(tasks=["{{ run.id }}", "{{ run.id }}"], on_failure=on_failure, **common)

    def pipeline(self, depth: int) -> Pipeline[Any, Any]:
        schema = self.draw(st.sampled_from([None, CONTEXT]))
        outside, self.has_fields = self.has_fields, schema is not None
        body = self.body(depth)
        self.has_fields = outside
        return Pipeline(
            body,
            self.name("p-"),
            self.draw(texts),
            input_schema=INPUT,
            context_schema=schema,
            context_type=None if schema else self.draw(st.sampled_from([None, "skills.x:Context"])),
            output=self.draw(values),
            budget=self.draw(st.none() | st.builds(UsageLimits, requests_limit=st.integers(1, 9))),
            deadline_s=self.draw(st.none() | seconds | st.just({"value": "input.n", "max": 3})),
        )

    def step(self, depth: int) -> BaseStep:
        kinds = [
            "step",
            "granular",
            "hitl",
            "end",
            "sleep",
            "await",
            "event",
            "tree_search",
            "cache",
            "continue_as_new",
        ]
        if self.has_fields:
            kinds += ["set"]
        if depth > 0:
            kinds += ["if", "switch", "loop", "state_machine", "map", "parallel", "router", "import"]
        make = getattr(self, "_" + self.draw(st.sampled_from(kinds)))
        step: BaseStep = make(
            depth,
            name=self.name(),
            when=self.draw(st.none() | conditions),
            tags=self.draw(st.lists(texts, max_size=2)),
        )
        return step

    def _granular(self, depth: int, **common: Any) -> BaseStep:
        return GranularStep(
            agent=self.draw(asked),
            thread=self._thread(),
            input=self.draw(values),
            max_turns=self.draw(st.integers(1, 9)),
            on_limit=self.draw(st.sampled_from(["fail", "finish", "pause"])),
            **self.draw(reconciled),
            history=self.draw(st.none() | histories),
            max_tool_concurrency=self.draw(st.integers(1, 3)),
            validators=self.draw(st.lists(callables, max_size=1)),
            fallback=self._step(depth, fallback=False, **common | {"when": None})
            if self.draw(st.booleans())
            else None,
            **common,
        )

    def _step(self, depth: int, *, fallback: bool = True, **common: Any) -> BaseStep:
        who = self.draw(callables | asked)
        by_name = isinstance(who, str) and self.draw(st.booleans())
        arguments = (
            self.draw(st.dictionaries(st.sampled_from("abc"), values, max_size=2)) if by_name else None
        )
        spare = fallback and self.draw(st.booleans())
        cache = self.draw(caches) if fallback else None
        return Step(
            agent=who,
            thread=None if isinstance(who, str) or cache is not None else self._thread(),
            arguments=arguments,
            input=None if by_name else self.draw(values),
            output_schema=self.draw(st.sampled_from([None, {"type": "string", "title": "# a: b"}])),
            processors=self.draw(st.builds(Processors, input=st.lists(callables, max_size=2))),
            validators=self.draw(st.lists(callables, max_size=2)),
            config=self.draw(configs),
            cache=cache,
            fallback=self._spare() if spare else None,
            **common,
        )

    def _thread(self) -> str | None:
        """Return a thread that no other branch uses."""
        return self.name() if self.draw(st.booleans()) else None

    def _spare(self) -> Step[Any, Any]:
        return Step(self.name(), self.draw(callables))

    def _hitl(self, depth: int, **common: Any) -> BaseStep:
        return HumanInTheLoopStep(
            message=self.draw(texts) + "?",
            answer_schema=self.draw(
                st.sampled_from([None, {"type": "boolean"}, {"items": {"enum": "{{ input.docs }}"}}])
            ),
            **(
                {"deadline_s": self.draw(seconds), "on_deadline": {"answer": True}}
                if self.draw(st.booleans())
                else {}
            ),
            **common,
        )

    def _sleep(self, depth: int, **common: Any) -> BaseStep:
        if self.draw(st.booleans()):
            return SleepStep(for_s=self.draw(seconds), **common)
        return SleepStep(until=self.draw(st.sampled_from(["'2026-11-29T09:00:00Z'", "skills.x:f"])), **common)

    def _end(self, depth: int, **common: Any) -> BaseStep:
        if self.draw(st.booleans()):
            return EndStep(fail="no {{ input.n }}", **common)
        return EndStep(of="body", output=self.draw(values), **common)

    def _set(self, depth: int, **common: Any) -> BaseStep:
        return SetStep(values={"notes": [self.draw(values)]}, **common)

    def _continue_as_new(self, depth: int, **common: Any) -> BaseStep:
        return ContinueAsNewStep(input=self.draw(values), **common)

    def _event(self, depth: int, **common: Any) -> BaseStep:
        return EventStep(
            event=self.draw(st.sampled_from([None, "order.paid", "a:b-c"])),
            key=self.draw(st.sampled_from([None, "run.id", "skills.x:f"])),
            event_schema=self.draw(st.sampled_from([None, {"type": "integer"}])),
            deadline_s=self.draw(st.none() | seconds | st.just({"value": "input.n", "max": 3})),
            **common,
        )

    def _tree_search(self, depth: int, **common: Any) -> BaseStep:
        return TreeSearchStep(
            propose=self.draw(callables | st.sampled_from(AGENTS[:2])),
            evaluate=self.draw(callables | st.just(AGENTS[0])),
            goal=self.draw(st.sampled_from([None, "depth > 1", "skills.x:f"])),
            beam_width=self.draw(st.integers(1, 9)),
            input=self.draw(values),
            **common,
        )

    def _cache(self, depth: int, **common: Any) -> BaseStep:
        inner = Step(self.name(), self.draw(callables))
        return CacheStep(step=inner, key=self.draw(st.sampled_from([None, "input.n"])), **common)

    def _if(self, depth: int, **common: Any) -> BaseStep:
        otherwise = self.body(depth, at_least=0) if self.draw(st.booleans()) else None
        return ConditionalStep(
            condition=self.draw(conditions),
            then=self.body(depth),
            else_=otherwise,
            output=self.draw(values),
            **common,
        )

    def _switch(self, depth: int, **common: Any) -> BaseStep:
        return ConditionalStep(
            condition=self.draw(st.sampled_from(["string(input.n)", *CALLABLES])),
            form="switch",
            branches=self.bodies(depth),
            default=self.body(depth),
            **common,
        )

    def _loop(self, depth: int, **common: Any) -> BaseStep:
        return LoopStep(
            body=self.body(depth),
            until=self.draw(st.sampled_from(["loop.index > 1", *CALLABLES])),
            max_iterations=self.draw(st.integers(1, 99) | st.just({"value": "input.n", "max": 3})),
            on_limit=self.draw(st.sampled_from(["fail", "continue"])),
            carry={"seen": Carry(self.draw(st.integers(0, 9)), "loop.index")},
            output=self.draw(values),
            **common,
        )

    def _state_machine(self, depth: int, **common: Any) -> BaseStep:
        out = [Transition("end", self.draw(conditions)), Transition("start")]
        states = {
            "start": State(
                self.body(depth, at_least=0), out, on_error=self.draw(st.none() | st.just("start"))
            ),
            "end": State(self.body(depth, at_least=0)),
        }
        return StateMachineStep(
            initial="start",
            states=states,
            final=["end"],
            max_transitions=self.draw(st.integers(1, 99)),
            on_error=self.draw(st.none() | st.just("end")),
            **common,
        )

    def _map(self, depth: int, **common: Any) -> BaseStep:
        return MapStep(
            body=self.body(depth),
            over=self.draw(st.sampled_from(["input.docs", "[1, 2]", *CALLABLES])),
            item_name=self.draw(st.sampled_from([None, self.name("item")])),
            max_concurrency=self.draw(st.integers(1, 99) | st.just({"value": "input.n", "max": 3})),
            on_error=self.draw(st.sampled_from(["fail", "collect", "skip"])),
            keep=self.draw(st.sampled_from(["outputs", "failed", "none"])),
            merge=self.draw(st.sampled_from(list(MergeStrategy)) | callables),
            **common,
        )

    def _branching(self, depth: int) -> dict[str, Any]:
        branches = self.bodies(depth)
        return {
            "branches": branches,
            "merge": self.draw(st.sampled_from(list(MergeStrategy)) | callables),
            "field_mapping": {next(iter(branches)): ["note"]}
            if self.has_fields and self.draw(st.booleans())
            else {},
            "on_branch_failure": self.draw(st.sampled_from(["fail", "collect", "skip"])),
            "max_concurrency": self.draw(st.none() | st.integers(1, 9)),
            "output": self.draw(values),
        }

    def _parallel(self, depth: int, **common: Any) -> BaseStep:
        return ParallelStep(**self._branching(depth), **common)

    def _router(self, depth: int, **common: Any) -> BaseStep:
        router = self.draw(callables | st.just(AGENTS[1]))
        return DynamicParallelRouterStep(
            router=router, input=self.draw(values), **self._branching(depth), **common
        )

    def _import(self, depth: int, **common: Any) -> BaseStep:
        child = self.pipeline(depth - 1)
        return ImportStep(
            pipeline=child,
            blueprint=self.draw(st.sampled_from(["blueprints/", "", "blueprints/flows/deep/"]))
            + f"{child.name}.yaml",
            arguments={"n": 1, "docs": ()},
            on_failure=self.draw(st.sampled_from(["fail", "skip", {"output": {"a": None}}])),
            **common,
        )


@st.composite
def trees(draw: Any) -> Pipeline[Any, Any]:
    """Generate a tree with steps of every kind."""
    return Growing(draw).pipeline(draw(st.integers(0, 2)))


def read_back(files: dict[str, str], entry: str) -> Any:
    found = compile_blueprint(
        entry,
        PinnedSource({path: text.encode() for path, text in files.items()}),
        allow_callables=["skills.*"],
    )
    assert found.pipeline is not None, [str(one) for one in found.diagnostics if one.is_error]
    return found.pipeline


@pytest.mark.parametrize(
    "text", ["0E0", "1e5", "12:30:00", "0o17", "1_000", ".inf", "9" * 20, "yes", "2026-01-01"]
)
def test_a_string_that_looks_like_another_type_is_written_as_a_string(text: str) -> None:
    tree = Pipeline((HumanInTheLoopStep(name="ask", message="?"),), name="p-1", description=text)
    assert read_back(write_blueprint(tree, ENTRY), ENTRY) == tree


@given(trees())
@tries(80)
def test_a_written_tree_is_read_back_equal(tree: Pipeline[Any, Any]) -> None:
    files = write_blueprint(tree, ENTRY)
    assert read_back(files, ENTRY) == tree
    assert write_blueprint(read_back(files, ENTRY), ENTRY) == files


@pytest.mark.parametrize("path", sorted(path.name for path in (ROOT / "blueprints").glob("*.yaml")))
def test_each_blueprint_of_this_project_is_rewritten_with_the_same_meaning(path: str) -> None:
    entry = f"blueprints/{path}"
    tree = compile_blueprint(entry, FileSource(ROOT), allow_callables=["skills.*", "blueprints.*"]).pipeline
    assert tree is not None
    written = write_blueprint(tree, entry)
    found = compile_blueprint(
        entry,
        PinnedSource({name: text.encode() for name, text in written.items()}),
        allow_callables=["skills.*", "blueprints.*"],
    )
    assert found.pipeline == tree


def test_every_kind_is_drawn() -> None:
    drawn = {name.removeprefix("_") for name in vars(Growing)}
    assert KINDS.keys() - {"conditional"} <= drawn


def test_default_values_are_left_out() -> None:
    tree = Pipeline(Step("a", "skills.x:f") >> Step("b", "skills.x:f", input="{{ previous }}"), "p")
    assert write_blueprint(tree, ENTRY)[ENTRY] == (
        "version: '1'\nname: p\nsteps:\n- name: a\n  call: skills.x:f\n"
        "- name: b\n  call: skills.x:f\n  input: '{{ previous }}'\n"
    )


def test_a_child_pipeline_from_python_gets_its_own_file() -> None:
    child = Pipeline(Step("a", "skills.x:f"), "child")
    files = write_blueprint(Pipeline([ImportStep("one", child), ImportStep("two", child)], "p"), ENTRY)
    assert list(files) == ["blueprints/flows/child.yaml", ENTRY]
    assert "blueprint: ./child.yaml" in files[ENTRY]


REFUSED = {
    "a lambda": (Pipeline(Step("a", lambda data: data), "p"), "cannot be imported by its name"),
    "no name": (Pipeline(Step("a", "skills.x:f")), "`name`"),
    "two agents of one name": (
        Pipeline([Step("a", agent=AGENTS[0]), Step("b", agent=AgentSpec("writer", "x:y"))], "p"),
        "two agents are named 'writer'",
    ),
    "two children of one name": (
        Pipeline(
            [
                ImportStep("a", Pipeline(Step("x", "skills.x:f"), "child")),
                ImportStep("b", Pipeline(Step("y", "skills.x:f"), "child")),
            ],
            "p",
        ),
        "another pipeline is already written to 'blueprints/flows/child.yaml'",
    ),
    "a name with a space": (Pipeline(Step("a b", "skills.x:f"), "p"), "cannot be written"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tree_that_a_blueprint_cannot_express_is_refused(name: str) -> None:
    tree, words = REFUSED[name]
    with pytest.raises(PipelineError) as caught:
        write_blueprint(tree, ENTRY)
    assert words in str(caught.value)
    assert caught.value.hint
