"""Each kind of step gives the same tree from YAML and from Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import indent
from typing import Any

import pytest

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.language.models import KINDS
from flujo.blueprint.serializer import write_blueprint
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain.agents import AgentSpec
from flujo.domain.approvals import Approval
from flujo.domain.merge import MergeStrategy
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.secrets import Secret
from flujo.domain.steps import (
    AwaitStep,
    BaseStep,
    CachePolicy,
    CacheStep,
    CallableRef,
    Carry,
    ConditionalStep,
    ContinueAsNewStep,
    DynamicParallelRouterStep,
    EndStep,
    EventStep,
    Expr,
    GranularStep,
    History,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Processors,
    Save,
    SetStep,
    SleepStep,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
    Transition,
    TreeSearchStep,
)
from flujo.domain.steps.tools import AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool
from flujo.domain.usage import UsageLimits
from flujo.exceptions import PipelineError

HEAD = """\
version: "1"
name: doors
input_schema: {type: object, required: [n, docs], properties: {n: {type: integer}, docs: {type: array}}}
context_schema: {properties: {note: {type: string}, notes: {type: array}}}
agents:
  writer: {model: a:b, instructions: "Write {{ run.id }}.", model_settings: {temperature: 0}}
  chooser: {model: c:d}
steps:
"""
CHILD = 'version: "1"\nname: child\nsteps: [{name: only, call: "skills.x:f"}]\n'
WRITER = AgentSpec(
    name="writer", model="a:b", instructions=Text("Write {{ run.id }}."), model_settings={"temperature": 0}
)
CHOOSER = AgentSpec(name="chooser", model="c:d")
F = CallableRef("skills.x:f")
G = CallableRef("skills.x:g")


def body(*names: str) -> Pipeline:
    """Return a body of steps that call `skills.x:f`."""
    return Pipeline(tuple(Step(name=name, call=F) for name in names))


@dataclass(frozen=True)
class Door:
    """A step, written in YAML and in Python."""

    name: str
    yaml: str
    python: BaseStep


DOORS = [
    Door(
        "step-with-everything",
        """\
name: ask
agent: writer
input: "About {{ input.n }}"
output_schema: {type: string}
when: input.n > 0
save: {note: output, notes: {append: output}}
tags: [a, b]
config: {timeout_s: 1m, max_retries: 2, retry: {backoff: fixed, on: [FLJ302]}, durability: exit}
""",
        Step(
            name="ask",
            agent=WRITER,
            input=Text("About {{ input.n }}"),
            output_schema={"type": "string"},
            when=Expr("input.n > 0"),
            save={"note": Save(Expr("output")), "notes": Save(Expr("output"), append=True)},
            tags=("a", "b"),
            config=StepConfig(
                timeout_s=60.0,
                max_retries=2,
                retry=RetryPolicy(backoff="fixed", on=("FLJ302",)),
                durability="exit",
            ),
        ),
    ),
    Door(
        "step-that-calls",
        'name: call\ncall: skills.x:f\nwith: {a: "{{ input.n }}", b: [1, null, "x"]}\n',
        Step(name="call", call=F, arguments={"a": Text("{{ input.n }}"), "b": (1, None, Text("x"))}),
    ),
    Door(
        "if",
        """\
kind: conditional
name: way
if: skills.x:f
then: [{name: a, call: "skills.x:f"}]
else: []
output: {given: "{{ previous }}"}
""",
        ConditionalStep(
            name="way",
            condition=F,
            branches={"then": body("a"), "else": body()},
            output={"given": Text("{{ previous }}")},
        ),
    ),
    Door(
        "switch",
        """\
kind: conditional
name: way
switch: input.n
branches: {"one": [{name: a, call: "skills.x:f"}]}
default: [{name: b, call: "skills.x:f"}]
""",
        ConditionalStep(
            name="way",
            form="switch",
            condition=Expr("input.n"),
            branches={"one": body("a")},
            default=body("b"),
        ),
    ),
    Door(
        "loop",
        """\
kind: loop
name: again
steps: [{name: a, call: "skills.x:f"}]
until: loop.index == 2
max_iterations: 3
on_limit: continue
carry: {wish: {initial: "", next: skills.x:f}}
""",
        LoopStep(
            name="again",
            body=body("a"),
            until=Expr("loop.index == 2"),
            max_iterations=3,
            on_limit="continue",
            carry={"wish": Carry(Text(""), F)},
        ),
    ),
    Door(
        "state-machine",
        """\
kind: state_machine
name: review
initial: draft
states:
  draft: {steps: [{name: a, call: "skills.x:f"}], transitions: [{to: done, when: input.n > 1}, {to: edit}]}
  edit: {transitions: [{to: draft, when: "skills.x:f"}, {to: done}]}
  done: {steps: [{name: b, call: "skills.x:f"}]}
final: [done]
max_transitions: 7
output: "{{ steps.a.output }}"
""",
        StateMachineStep(
            name="review",
            initial="draft",
            states={
                "draft": State(body("a"), (Transition("done", Expr("input.n > 1")), Transition("edit"))),
                "edit": State(body(), (Transition("draft", F), Transition("done"))),
                "done": State(body("b")),
            },
            final=("done",),
            max_transitions=7,
            output=Text("{{ steps.a.output }}"),
        ),
    ),
    Door(
        "state-machine-by-default",
        "kind: state_machine\nname: review\ninitial: only\nfinal: [only]\nstates: {only: {}}\n",
        StateMachineStep(name="review", initial="only", final=("only",), states={"only": State(body())}),
    ),
    Door(
        "map",
        """\
kind: map
name: each
over: input.docs
as: document
steps: [{name: a, call: "skills.x:f", save: {notes: {append: output}}}]
max_concurrency: 3
on_error: collect
merge: context_update
output: "{{ previous }}"
""",
        MapStep(
            name="each",
            over=Expr("input.docs"),
            item_name="document",
            body=Pipeline((Step(name="a", call=F, save={"notes": Save(Expr("output"), append=True)}),)),
            max_concurrency=3,
            on_error="collect",
            merge=MergeStrategy.CONTEXT_UPDATE,
            output=Text("{{ previous }}"),
        ),
    ),
    Door(
        "map-by-default",
        'kind: map\nname: each\nover: skills.x:f\nsteps: [{name: a, call: "skills.x:f"}]\n',
        MapStep(name="each", over=F, body=body("a")),
    ),
    Door(
        "parallel",
        """\
kind: parallel
name: both
branches: {one: [{name: a, call: "skills.x:f"}], two: []}
merge: keep_first
field_mapping: {one: [note, notes]}
on_branch_failure: skip
max_concurrency: 2
output: {first: "{{ previous }}"}
""",
        ParallelStep(
            name="both",
            branches={"one": body("a"), "two": body()},
            merge=MergeStrategy.KEEP_FIRST,
            field_mapping={"one": ("note", "notes")},
            on_branch_failure="skip",
            max_concurrency=2,
            output={"first": Text("{{ previous }}")},
        ),
    ),
    Door(
        "parallel-by-default",
        'kind: parallel\nname: both\nbranches: {one: [{name: a, call: "skills.x:f"}]}\n',
        ParallelStep(name="both", branches={"one": body("a")}),
    ),
    Door(
        "router-by-an-agent",
        """\
kind: router
name: route
router: chooser
input: "{{ input.n }}"
branches: {one: [{name: a, call: "skills.x:f"}]}
merge: skills.x:f
""",
        DynamicParallelRouterStep(
            name="route",
            router=CHOOSER,
            input=Text("{{ input.n }}"),
            branches={"one": body("a")},
            merge=F,
        ),
    ),
    Door(
        "router-by-a-callable",
        'kind: router\nname: route\nrouter: skills.x:f\nbranches: {one: [{name: a, call: "skills.x:f"}]}\n',
        DynamicParallelRouterStep(name="route", router=F, branches={"one": body("a")}),
    ),
    Door(
        "around-a-step",
        """\
name: tell
agent: writer
processors: {input: ["skills.x:f"], output: ["skills.x:g", "skills.x:f"]}
validators: ["skills.x:f", "skills.x:g"]
fallback:
  call: skills.x:f
  with: {n: "{{ input.n }}"}
  validators: ["skills.x:g"]
  config: {max_retries: 1}
  fallback: {agent: chooser}
""",
        Step(
            name="tell",
            agent=WRITER,
            processors=Processors(input=(F,), output=(G, F)),
            validators=(F, G),
            fallback=Step(
                name="whatever",
                call=F,
                arguments={"n": Text("{{ input.n }}")},
                validators=(G,),
                config=StepConfig(max_retries=1),
                fallback=Step(name="more", agent=CHOOSER),
            ),
        ),
    ),
    Door(
        "hitl",
        'kind: hitl\nname: ask\nmessage: "Send {{ input.n }}?"\nanswer_schema: {type: boolean}\n',
        HumanInTheLoopStep(
            name="ask", message=Text("Send {{ input.n }}?"), answer_schema={"type": "boolean"}
        ),
    ),
    Door(
        "a-limit-from-data",
        "kind: loop\nname: l\nuntil: 'true'\nmax_iterations: {value: '{{ input.n }}', max: 9}\n"
        "steps: [{name: s, call: skills.x:f}]\n",
        LoopStep("l", Step("s", F), until="true", max_iterations={"value": "input.n", "max": 9}),
    ),
    Door(
        "seconds-from-data",
        "kind: hitl\nname: h\nmessage: ok?\ndeadline_s: {value: '{{ input.n }}', max: 2h}\n",
        HumanInTheLoopStep("h", Text("ok?"), deadline_s={"value": "input.n", "max": 7200}),
    ),
    Door(
        "a-timeout-from-data",
        "name: s\ncall: skills.x:f\nconfig: {timeout_s: {value: '{{ input.n }}', max: 90s}}\n",
        Step("s", F, config=StepConfig(timeout_s={"value": "input.n", "max": 90})),
    ),
    Door(
        "machine-with-states-after-errors",
        "kind: state_machine\nname: m\ninitial: a\nfinal: [b]\non_error: b\n"
        "states: {a: {transitions: [{to: b}], on_error: a}, b: {}}\n",
        StateMachineStep(
            name="m",
            initial="a",
            final=["b"],
            on_error="b",
            states={"a": State((), [Transition("b")], on_error="a"), "b": State()},
        ),
    ),
    Door(
        "hitl-with-choices-from-data",
        "kind: hitl\nname: ask\nmessage: m\n"
        "answer_schema: {type: object, properties: {n: {enum: '{{ [string(input.n)] }}'}}}\n",
        HumanInTheLoopStep(
            name="ask",
            message=Text("m"),
            answer_schema={"type": "object", "properties": {"n": {"enum": "{{ [string(input.n)] }}"}}},
        ),
    ),
    Door(
        "call-with-an-effect",
        "name: pay\ncall: skills.x:f\neffect: transactional\nenforce_idempotency: true\nin_doubt: reconcile\n"
        "reconcile: skills.x:f\n",
        Step(
            name="pay",
            call=F,
            effect="transactional",
            enforce_idempotency=True,
            in_doubt="reconcile",
            reconcile=F,
        ),
    ),
    Door(
        "hitl-with-a-deadline",
        "kind: hitl\nname: ask\nmessage: m\ndeadline_s: 72h\non_deadline: {answer: {ok: false, n: '{{ input.n }}'}}\n",
        HumanInTheLoopStep(
            name="ask",
            message=Text("m"),
            deadline_s=259_200.0,
            on_deadline={"answer": {"ok": False, "n": Text("{{ input.n }}")}},
        ),
    ),
    Door(
        "await", "kind: await\nname: done\ntask: '{{ previous }}'\n", AwaitStep("done", task="{{ previous }}")
    ),
    Door(
        "await-of-several",
        "kind: await\nname: done\ntasks:\n  - '{{ previous }}'\n  - '{{ input.n }}'\non_failure: skip\n",
        AwaitStep("done", tasks=["{{ previous }}", "{{ input.n }}"], on_failure="skip"),
    ),
    Door(
        "in-the-background",
        "name: report\ncall: skills.a:b\nconfig:\n  execution_mode: background\n",
        Step("report", "skills.a:b", config=StepConfig(execution_mode="background")),
    ),
    Door("event", "kind: event\nname: paid\n", EventStep("paid")),
    Door(
        "event-with-everything",
        """\
kind: event
name: paid
event: order.paid
key: input.n
event_schema: {type: integer}
deadline_s: 72h
on_deadline: {answer: 0}
""",
        EventStep(
            "paid",
            event="order.paid",
            key="input.n",
            event_schema={"type": "integer"},
            deadline_s=259_200.0,
            on_deadline={"answer": 0},
        ),
    ),
    Door(
        "continue-as-new",
        'kind: continue_as_new\nname: next\ninput: {n: "{{ input.n + 1 }}"}\n',
        ContinueAsNewStep("next", input={"n": "{{ input.n + 1 }}"}),
    ),
    Door(
        "set",
        'kind: set\nname: put\nset: {note: "n is {{ input.n }}", notes: [a]}\n',
        SetStep("put", {"note": "n is {{ input.n }}", "notes": ["a"]}),
    ),
    Door(
        "loop-that-is-skipped",
        "kind: loop\nname: again\nuntil: 'true'\non_error: skip\nsteps: [{name: a, call: 'skills.x:f'}]\n",
        LoopStep("again", body("a"), until="true", on_error="skip"),
    ),
    Door(
        "parallel-that-is-replaced",
        "kind: parallel\nname: both\non_error: {output: ['{{ input.n }}']}\n"
        "branches: {one: [{name: a, call: 'skills.x:f'}]}\n",
        ParallelStep("both", {"one": body("a")}, on_error={"output": ["{{ input.n }}"]}),
    ),
    Door("end", "kind: end\nname: stop\n", EndStep("stop")),
    Door(
        "end-of-a-body",
        'kind: end\nname: stop\nof: body\noutput: ["{{ input.n }}"]\n',
        EndStep("stop", of="body", output=["{{ input.n }}"]),
    ),
    Door(
        "end-in-failure",
        'kind: end\nname: stop\nfail: "no {{ input.n }}"\n',
        EndStep("stop", fail="no {{ input.n }}"),
    ),
    Door("sleep", "kind: sleep\nname: rest\nfor: 3d\n", SleepStep("rest", for_s=259_200.0)),
    Door(
        "sleep-until",
        "kind: sleep\nname: rest\nuntil: 2026-11-29T09:00:00Z\n",
        SleepStep("rest", until="2026-11-29T09:00:00Z"),
    ),
    Door(
        "cache",
        """\
kind: cache
name: known
step: {name: a, call: "skills.x:f"}
key: input.n
ttl_s: 1h
""",
        CacheStep(name="known", step=Step(name="a", call=F), key=Expr("input.n"), ttl_s=3600.0),
    ),
    Door(
        "cache-on-a-step",
        'name: a\ncall: skills.x:f\ncache: {key: "skills.x:f", ttl_s: 30d}\n',
        Step(name="a", call=F, cache=CachePolicy(key=F, ttl_s=30 * 86400.0)),
    ),
    Door(
        "cache-by-default",
        "name: a\ncall: skills.x:f\ncache: {}\n",
        Step(name="a", call=F, cache=CachePolicy()),
    ),
    Door(
        "tree-search",
        """\
kind: tree_search
name: search
propose: chooser
evaluate: skills.x:f
input: "{{ input.n }}"
goal: score > 0.5 && depth < 3
beam_width: 2
max_depth: 4
max_concurrency: 5
""",
        TreeSearchStep(
            name="search",
            propose=CHOOSER,
            evaluate=F,
            input=Text("{{ input.n }}"),
            goal=Expr("score > 0.5 && depth < 3"),
            beam_width=2,
            max_depth=4,
            max_concurrency=5,
        ),
    ),
    Door(
        "tree-search-by-default",
        "kind: tree_search\nname: search\npropose: skills.x:f\nevaluate: skills.x:f\n",
        TreeSearchStep(name="search", propose=F, evaluate=F),
    ),
    Door(
        "import",
        'kind: import\nname: sub\nblueprint: ./child.yaml\nwith: {a: "{{ input.n }}"}\non_failure: {output: 1}\n',
        ImportStep(
            name="sub",
            blueprint="blueprints/child.yaml",
            pipeline=Pipeline((Step(name="only", call=F),), name="child"),
            arguments={"a": Text("{{ input.n }}")},
            on_failure={"output": 1},
        ),
    ),
    Door(
        "granular",
        """\
kind: granular
name: talk
agent: writer
input: "{{ input }}"
max_turns: 3
on_limit: finish
max_tool_concurrency: 2
enforce_idempotency: true
in_doubt: reconcile
reconcile: "skills.x:f"
output_schema: {type: string}
validators: ["skills.x:f"]
fallback: {call: "skills.x:f"}
history: {max_tokens: 4000, keep: summary}
config: {max_retries: 2}
""",
        GranularStep(
            "talk",
            WRITER,
            input=Text("{{ input }}"),
            max_turns=3,
            on_limit="finish",
            max_tool_concurrency=2,
            enforce_idempotency=True,
            in_doubt="reconcile",
            reconcile=F,
            output_schema={"type": "string"},
            validators=[F],
            fallback=Step("fallback", F),
            history=History(4000, keep="summary"),
            config=StepConfig(max_retries=2),
        ),
    ),
    Door(
        "import-that-inherits",
        "kind: import\nname: sub\nblueprint: ./child.yaml\ncontext: inherit\n",
        ImportStep(
            name="sub",
            blueprint="blueprints/child.yaml",
            pipeline=Pipeline((Step(name="only", call=F),), name="child"),
            context="inherit",
        ),
    ),
]


def from_yaml(step: str, top: str = "") -> Pipeline:
    entry = top + HEAD + "  -\n" + indent(step, "    ")
    files = {"blueprints/doors.yaml": entry.encode(), "blueprints/child.yaml": CHILD.encode()}
    found = compile_blueprint("blueprints/doors.yaml", PinnedSource(files), allow_callables=["skills.*"])
    assert found.pipeline is not None, [str(one) for one in found.diagnostics]
    return found.pipeline


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_yaml_and_python_give_the_same_tree(door: Door) -> None:
    pipeline = from_yaml(door.yaml)
    assert pipeline.steps == (door.python,)
    in_python = Pipeline((door.python,))
    assert [path for path, _ in pipeline.walk()] == [path for path, _ in in_python.walk()]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_a_tree_from_python_is_written_as_equal_yaml(door: Door) -> None:
    pipeline = replace(from_yaml(door.yaml), steps=(door.python,))
    files = {path: text.encode() for path, text in write_blueprint(pipeline, "blueprints/doors.yaml").items()}
    found = compile_blueprint("blueprints/doors.yaml", PinnedSource(files), allow_callables=["skills.*"])
    assert found.pipeline == pipeline, [str(one) for one in found.diagnostics]


def test_every_available_kind_is_tested_in_yaml_and_python() -> None:
    assert {door.python.kind for door in DOORS} == KINDS.keys()


def test_a_budget_is_the_same_in_yaml_and_python() -> None:
    yaml = "budget: {total_cost_usd_limit: 0.5, wall_time_s_limit: 2m, unknown_price: allow}\n"
    limits = UsageLimits(total_cost_usd_limit=0.5, wall_time_s_limit=120.0, unknown_price="allow")
    assert from_yaml('name: a\ncall: "skills.x:f"\n', yaml).budget == limits


def test_a_tool_in_its_long_form_is_the_same_in_yaml_and_python() -> None:
    entry = (
        "{call: skills.x:pay, effect: idempotent, enforce_idempotency: true, in_doubt: fail, "
        "with: {key: {secret: BANK_KEY}, limits: {day: 5, hosts: [a, {secret: HOST}, null]}}}"
    )
    asked = "{call: skills.x:send, approve: {when: args.n > 1, message: 'Send?', deadline_s: {value: args.n, max: 2m}, on_deadline: deny, editable: true}}"
    top = f"agents:\n  clerk: {{model: a:b, tools: [skills.x:look, {{call: skills.x:find}}, {entry}, {asked}, {{call: skills.x:ask, approve: true}}]}}\n"
    text = f'version: "1"\nname: desk\n{top}steps: [{{kind: granular, name: serve, agent: clerk}}]\n'
    bound = {"key": Secret("BANK_KEY"), "limits": {"day": 5, "hosts": ["a", Secret("HOST"), None]}}
    pay = CallableTool(
        "skills.x:pay", effect="idempotent", enforce_idempotency=True, in_doubt="fail", with_=bound
    )
    rules = Approval(
        when="args.n > 1",
        message="Send?",
        deadline_s={"value": "args.n", "max": 120},
        on_deadline="deny",
        editable=True,
    )
    send = CallableTool("skills.x:send", approve=rules)
    clerk = AgentSpec(
        "clerk",
        "a:b",
        tools=["skills.x:look", "skills.x:find", pay, send, CallableTool("skills.x:ask", approve=True)],
    )
    compiled = compile_blueprint(
        "desk.yaml", PinnedSource({"desk.yaml": text.encode()}), allow_callables=["skills.*"]
    )
    assert compiled.pipeline is not None
    assert compiled.pipeline.steps == (GranularStep("serve", clerk),)
    written = write_blueprint(compiled.pipeline, "desk.yaml")["desk.yaml"]
    again = compile_blueprint(
        "desk.yaml", PinnedSource({"desk.yaml": written.encode()}), allow_callables=["skills.*"]
    )
    assert again.pipeline == compiled.pipeline
    assert "- skills.x:find" in written
    assert "approve: true" in written


def test_blueprints_and_agents_as_tools_give_the_same_tree_and_are_written_back() -> None:
    given = {"type": "object", "properties": {"order": {"type": "string"}}}
    order = f'version: "1"\nname: check-order\ninput_schema: {given}\nsteps: [{{name: only, call: "skills.x:f"}}]\n'
    tools = (
        "{blueprint: ./order.yaml, description: Look up}, {agent: helper, description: Help, max_turns: 3}"
    )
    top = f"agents:\n  clerk: {{model: a:b, tools: [{tools}]}}\n  helper: {{model: a:b}}\n"
    text = f'version: "1"\nname: desk\n{top}steps: [{{kind: granular, name: serve, agent: clerk}}]\n'

    def compiled(files: dict[str, str]) -> Pipeline | None:
        source = PinnedSource({path: said.encode() for path, said in files.items()})
        return compile_blueprint("desk.yaml", source, allow_callables=["skills.*"]).pipeline

    tree = compiled({"desk.yaml": text, "order.yaml": order})
    assert tree is not None
    check = Pipeline(Step("only", F), name="check-order", input_schema=given)
    look = BlueprintTool(check, "Look up", blueprint="order.yaml")
    clerk = AgentSpec(
        "clerk", "a:b", tools=[look, AgentTool(AgentSpec("helper", "a:b"), "Help", max_turns=3)]
    )
    assert tree.steps == (GranularStep("serve", clerk),)
    assert [tool.name for tool in clerk.tools] == ["check_order", "helper"]
    assert compiled(write_blueprint(tree, "desk.yaml")) == tree


@pytest.mark.parametrize(
    ("argument", "wrong"), [("pipeline", 5), ("pipeline", None), ("entry", ""), ("entry", ["x"])]
)
def test_a_wrong_argument_is_named(argument: str, wrong: Any) -> None:
    given: dict[str, Any] = {"pipeline": Pipeline(Step("s", "os:getcwd"), name="p"), "entry": "p.yaml"}
    with pytest.raises(PipelineError, match=f"`{argument}` is "):
        write_blueprint(**{**given, argument: wrong})
