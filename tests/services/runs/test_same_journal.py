"""A step that is written in YAML and one that is written in Python are run to the same journal."""

from __future__ import annotations

from dataclasses import dataclass, fields
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pytest

import doors
from flujo import (
    AwaitStep,
    CachePolicy,
    CacheStep,
    Carry,
    ConditionalStep,
    ContinueAsNewStep,
    DynamicParallelRouterStep,
    EndStep,
    EventStep,
    Flujo,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    MergeStrategy,
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
)
from flujo.agents.settings import AgentSettings
from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.language.models import KINDS
from flujo.blueprint.sources.source_files import PinnedSource
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import task_id
from flujo.domain.run import RunStatus
from flujo.services.binding.binding import PipelineBinding
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.steps import BaseStep

HEAD = """\
version: "1"
name: doors
input_schema: {type: integer}
context_schema: {properties: {total: {type: integer, default: 0}, log: {type: array, default: []}}}
agents: {teller: {model: "openai:gpt-5-mini"}}
steps:
"""
TELLER = AgentSpec("teller", "openai:gpt-5-mini")
CONTEXT = {
    "properties": {"total": {"type": "integer", "default": 0}, "log": {"type": "array", "default": []}}
}
CHILD = 'version: "1"\nname: child\nsteps: [{name: twice, call: "doors:twice"}]\n'

twice, plus = Step("twice", doors.twice), Step("plus", doors.plus)


@dataclass(frozen=True)
class Door:
    """A step, written twice, and how its run on 3 ends."""

    yaml: str
    python: BaseStep
    output: Any
    answer: Any = None


DOORS = {
    "step": Door(
        """\
name: plus
call: doors:plus
with: {data: "{{ input }}", by: 4}
when: input > 1
save: {total: output, log: {append: output}}
""",
        Step(
            "plus",
            doors.plus,
            arguments={"data": "{{ input }}", "by": 4},
            when="input > 1",
            save={"total": "output", "log": {"append": "output"}},
        ),
        7,
    ),
    "step that is skipped": Door(
        'name: twice\ncall: doors:twice\nwhen: "doors:is_big"\n',
        Step("twice", doors.twice, when=doors.is_big),
        3,
    ),
    "step that is kept": Door(
        "name: twice\ncall: doors:twice\ncache: {key: context.total, ttl_s: 1h}\n",
        Step("twice", doors.twice, cache=CachePolicy(key="context.total", ttl_s=3600.0)),
        6,
    ),
    "step that fails": Door(
        "name: fail\ncall: doors:fail\nconfig: {max_retries: 1, retry: {backoff: none}, timeout_s: 1m}\n",
        Step(
            "fail",
            doors.fail,
            config=StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"), timeout_s=60.0),
        ),
        None,
    ),
    "step with a fallback": Door(
        """\
name: fail
call: doors:twice
validators: ["doors:must_be_big"]
processors: {input: ["doors:twice"], output: ["doors:fail"]}
fallback: {call: "doors:plus"}
""",
        Step(
            "fail",
            doors.twice,
            validators=[doors.must_be_big],
            processors=Processors(input=[doors.twice], output=[doors.fail]),
            fallback=Step("instead", doors.plus),
        ),
        4,
    ),
    "step that is judged": Door(
        "name: twice\ncall: doors:twice\nvalidators: [doors:must_be_big]\noutput_schema: {type: integer}\n",
        Step("twice", doors.twice, validators=[doors.must_be_big], output_schema=int),
        6,
    ),
    "granular": Door(
        """\
kind: granular
name: talk
agent: teller
input: "how big is {{ input }}?"
max_turns: 2
on_limit: finish
validators: ["doors:must_be_long"]
fallback: {call: "doors:plus"}
""",
        Step.granular(
            "talk",
            TELLER,
            input="how big is {{ input }}?",
            max_turns=2,
            on_limit="finish",
            validators=[doors.must_be_long],
            fallback=Step("instead", doors.plus),
        ),
        "very big",
    ),
    "conditional": Door(
        """\
kind: conditional
name: way
if: doors:is_big
then: [{name: twice, call: "doors:twice"}]
else: [{name: plus, call: "doors:plus"}]
""",
        ConditionalStep("way", condition_callable=doors.is_big, then=twice, else_=plus),
        4,
    ),
    "switch": Door(
        """\
kind: conditional
name: way
switch: doors:size
branches: {small: [{name: twice, call: "doors:twice"}]}
default: [{name: plus, call: "doors:plus"}]
output: {was: "{{ previous }}"}
""",
        ConditionalStep(
            "way",
            condition_callable=doors.size,
            branches={"small": twice},
            default=plus,
            output={"was": "{{ previous }}"},
        ),
        {"was": 6},
    ),
    "loop": Door(
        """\
kind: loop
name: again
steps: [{name: twice, call: "doors:twice"}, {name: plus, call: "doors:plus"}]
until: doors:is_big
carry: {seen: {initial: 0, next: loop.seen + previous}}
output: {last: "{{ previous }}", seen: "{{ loop.seen }}"}
""",
        LoopStep(
            "again",
            twice >> plus,
            exit_condition_callable=doors.is_big,
            carry={"seen": Carry(0, "loop.seen + previous")},
            output={"last": "{{ previous }}", "seen": "{{ loop.seen }}"},
        ),
        {"last": 7, "seen": 0},
    ),
    "loop that cannot end": Door(
        'kind: loop\nname: again\nsteps: [{name: plus, call: "doors:plus"}]\nuntil: "false"\nmax_iterations: 2\n',
        LoopStep("again", plus, until=False, max_iterations=2),
        None,
    ),
    "state_machine": Door(
        """\
kind: state_machine
name: machine
initial: up
final: [end]
states:
  up:
    steps: [{name: twice, call: "doors:twice"}]
    transitions: [{to: end, when: "doors:is_big"}, {to: up}]
  end: {steps: [{name: plus, call: "doors:plus"}]}
""",
        StateMachineStep(
            "machine",
            initial="up",
            final=["end"],
            states={
                "up": State(twice, [Transition("end", doors.is_big), Transition("up")]),
                "end": State(plus),
            },
        ),
        7,
    ),
    "map": Door(
        """\
kind: map
name: each
over: doors:items
as: number
steps: [{name: twice, call: "doors:twice", save: {log: {append: output}}}]
max_concurrency: 1
merge: context_update
""",
        MapStep(
            "each",
            Step("twice", doors.twice, save={"log": {"append": "output"}}),
            over=doors.items,
            item_name="number",
            max_concurrency=1,
            merge_strategy=MergeStrategy.CONTEXT_UPDATE,
        ),
        [0, 2, 4],
    ),
    "map that skips": Door(
        """\
kind: map
name: each
over: "[1, 2]"
steps: [{name: fail, call: "doors:fail"}]
on_error: skip
max_concurrency: 1
""",
        MapStep("each", Step("fail", doors.fail), over="[1, 2]", on_error="skip", max_concurrency=1),
        [],
    ),
    "parallel": Door(
        """\
kind: parallel
name: both
branches:
  high: [{name: twice, call: "doors:twice", save: {total: output}}]
  low: [{name: plus, call: "doors:plus", save: {log: {append: output}}}]
field_mapping: {high: [total]}
max_concurrency: 1
""",
        ParallelStep(
            "both",
            {
                "high": Step("twice", doors.twice, save={"total": "output"}),
                "low": Step("plus", doors.plus, save={"log": {"append": "output"}}),
            },
            field_mapping={"high": ["total"]},
            max_concurrency=1,
        ),
        {"high": 6, "low": 4},
    ),
    "parallel that overwrites": Door(
        """\
kind: parallel
name: both
branches:
  high: [{name: twice, call: "doors:twice", save: {total: output}}]
  low: [{name: plus, call: "doors:plus", save: {total: output}}]
merge: overwrite
max_concurrency: 1
""",
        ParallelStep(
            "both",
            {
                "high": Step("twice", doors.twice, save={"total": "output"}),
                "low": Step("plus", doors.plus, save={"total": "output"}),
            },
            merge_strategy=MergeStrategy.OVERWRITE,
            max_concurrency=1,
        ),
        {"high": 6, "low": 4},
    ),
    "router": Door(
        """\
kind: router
name: chosen
router: doors:which
branches:
  low: [{name: plus, call: "doors:plus"}]
  high: [{name: twice, call: "doors:twice"}]
max_concurrency: 1
""",
        DynamicParallelRouterStep(
            "chosen", {"low": plus, "high": twice}, router_agent=doors.which, max_concurrency=1
        ),
        {"low": 4, "high": 6},
    ),
    "cache": Door(
        'kind: cache\nname: kept\nstep: {name: twice, call: "doors:twice"}\nkey: context.total\nttl_s: 30m\n',
        CacheStep("kept", twice, key="context.total", ttl_s=1800.0),
        6,
    ),
    "import": Door(
        "kind: import\nname: child\nblueprint: ./child.yaml\nsave: {total: output}\n",
        ImportStep(
            "child",
            Pipeline(twice, name="child"),
            blueprint="blueprints/child.yaml",
            save={"total": "output"},
        ),
        6,
    ),
    "hitl": Door(
        'kind: hitl\nname: ask\nmessage: "Send {{ previous }}?"\nanswer_schema: {type: boolean}\n'
        "deadline_s: 1d\non_deadline: {answer: false}\n",
        HumanInTheLoopStep(
            "ask",
            "Send {{ previous }}?",
            answer_schema=bool,
            deadline_s=86400.0,
            on_deadline={"answer": False},
        ),
        True,
        answer=True,
    ),
    "continue_as_new": Door(
        "kind: continue_as_new\nname: next\nwhen: 'false'\ninput: 4\n",
        ContinueAsNewStep("next", when="false", input=4),
        3,
    ),
    "conditional that is replaced": Door(
        "kind: conditional\nname: way\nif: 'true'\nthen: [{name: fail, call: 'doors:fail'}]\non_error: {output: ['{{ input }}']}\n",
        ConditionalStep(
            "way", condition="true", then=Step("fail", doors.fail), on_error={"output": ["{{ input }}"]}
        ),
        [3],
    ),
    "set": Door(
        "kind: set\nname: put\nset: {total: '{{ context.total + input }}', log: [a]}\n",
        SetStep("put", {"total": "{{ context.total + input }}", "log": ["a"]}),
        {"total": 3, "log": ["a"]},
    ),
    "end": Door(
        "kind: end\nname: stop\noutput: ['{{ input }}']\n", EndStep("stop", output=["{{ input }}"]), [3]
    ),
    "end of a body": Door(
        "kind: end\nname: stop\nof: body\nwhen: input == 3\n",
        EndStep("stop", of="body", when="input == 3"),
        3,
    ),
    "end in failure": Door(
        "kind: end\nname: stop\nfail: 'no {{ input }}'\n", EndStep("stop", fail="no {{ input }}"), None
    ),
    "sleep": Door("kind: sleep\nname: rest\nfor: 1ms\n", SleepStep("rest", for_s=0.001), 3),
    "event": Door(
        "kind: event\nname: paid\ndeadline_s: 1ms\non_deadline: {answer: 5}\n",
        EventStep("paid", deadline_s=0.001, on_deadline={"answer": 5}),
        5,
    ),
    "await": Door("kind: await\nname: done\ntasks: '{{ [] }}'\n", AwaitStep("done", tasks="{{ [] }}"), []),
    "background": Door(
        "name: launch\ncall: doors:twice\nconfig: {execution_mode: background}\n",
        Step("launch", "doors:twice", config=StepConfig(execution_mode="background")),
        {"task_id": task_id(RunId("run"), StepPath("launch"), 1)},
    ),
    "tree_search": Door(
        """\
kind: tree_search
name: search
propose: doors:propose
evaluate: doors:score
goal: candidate > 8
beam_width: 2
max_depth: 3
max_concurrency: 1
""",
        TreeSearchStep(
            "search",
            propose=doors.propose,
            evaluate=doors.score,
            goal="candidate > 8",
            beam_width=2,
            max_depth=3,
            max_concurrency=1,
        ),
        {"candidate": 9, "score": 9.0, "depth": 2, "path": [6, 9], "goal_reached": True},
    ),
}


class Scripted(PipelineBinding):
    """A binding whose models answer from a script."""

    def agent(self, who: Any) -> Any:
        return ScriptedAgent(["very big"]) if isinstance(who, AgentSpec) else super().agent(who)


NOT_COMPARED = {"started_at", "ended_at"}


def compiled(step: str) -> Pipeline:
    files = {
        "blueprints/doors.yaml": (HEAD + "  -\n" + indent(step, "    ")).encode(),
        "blueprints/child.yaml": CHILD.encode(),
    }
    found = compile_blueprint("blueprints/doors.yaml", PinnedSource(files), allow_callables=["doors"])
    assert found.pipeline is not None, [str(one) for one in found.diagnostics]
    return found.pipeline


def bound(pipeline: Pipeline, folder: Path) -> PipelineBinding:
    settings = AgentSettings(
        coercion_level=0, structured_output="openai_json", environment={}, cache_dir=folder
    )
    binding = Scripted(allow_callables=["doors"], agent_settings=settings)
    binding.bind(pipeline)
    return binding


async def journal(pipeline: Pipeline, door: Door, folder: Path) -> tuple[list[dict[str, Any]], Any]:
    """Return the journal of a run on 3, without its times, and the output."""
    store = MemoryStateStore()
    async with Flujo[Any, Any, Any](pipeline, store=store, binding=bound(pipeline, folder)) as runner:
        result = await runner.run_result_async(3, run_id="run")
        if door.answer is not None:
            assert result.status is RunStatus.PAUSED
            result = await runner.resume_async("run", door.answer)
    entries = await store.entries(RunId("run"))
    kept = [each.name for each in fields(entries[0]) if each.name not in NOT_COMPARED]
    return [{name: getattr(entry, name) for name in kept} for entry in entries], result.output


@pytest.mark.parametrize("name", DOORS)
async def test_both_doors_lead_to_the_same_tree_and_the_same_journal(name: str, tmp_path: Path) -> None:
    door = DOORS[name]
    from_yaml = compiled(door.yaml)
    from_python = Pipeline(door.python, "doors", input_schema={"type": "integer"}, context_schema=CONTEXT)
    assert from_yaml == from_python
    (yaml_journal, yaml_output) = await journal(from_yaml, door, tmp_path)
    (python_journal, python_output) = await journal(from_python, door, tmp_path)
    assert yaml_journal == python_journal
    assert yaml_output == python_output == door.output


def test_every_kind_that_is_available_is_run() -> None:
    assert {door.python.kind for door in DOORS.values()} == KINDS.keys()
