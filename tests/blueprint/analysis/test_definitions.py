"""A finding in an expression shows the definition of the name."""

import pytest

from flujo.blueprint.compiler import compile_blueprint
from flujo.blueprint.sources.source_files import PinnedSource

HEAD = """\
version: "1"
name: e
input_schema: {type: object, required: [text], properties: {text: {type: string}}}
context_schema: {type: object, required: [label], properties: {label: {type: string}}}
agents:
  sorter:
    model: test:x
    output_schema: {type: object, required: [label], properties: {label: {type: string}}}
steps:
  - {name: sort, agent: sorter, input: "{{ input.text }}"}
  - kind: parallel
    name: both
    branches: {a: [{name: one, agent: sorter, input: "{{ input.text }}"}]}
    output: {label: "{{ previous.a.label }}"}
"""


@pytest.mark.parametrize(
    ("reads", "place", "label"),
    [
        ("input.txt", "3:1", "the input is declared here"),
        ("context.lable", "4:1", "the context is declared here"),
        ("steps.sort.output.lable", "8:5", "its output is declared here"),
        ("steps.both.output.lable", "14:5", "its output is declared here"),
        ("steps.one.output", "13:27", "the step is here"),
        ("steps.later.output", "16:12", "the step is here"),
    ],
)
def test_an_unreadable_name_shows_its_definition(reads: str, place: str, label: str) -> None:
    check = f'  - {{name: check, agent: sorter, input: "{{{{ {reads} }}}}"}}\n'
    blueprint = f"{HEAD}{check}  - {{name: later, agent: sorter}}\n"
    source = PinnedSource({"blueprints/e.yaml": blueprint.encode()})
    [found] = [one for one in compile_blueprint("blueprints/e.yaml", source).diagnostics if one.is_error]
    assert found.code == "FLJ204"
    assert [(str(span), said) for span, said in found.related] == [(f"blueprints/e.yaml:{place}", label)]


def test_an_undefined_name_has_no_second_place() -> None:
    blueprint = f'{HEAD}  - {{name: check, agent: sorter, input: "{{{{ steps.nowhere.output }}}}"}}\n'
    source = PinnedSource({"blueprints/e.yaml": blueprint.encode()})
    [found] = [one for one in compile_blueprint("blueprints/e.yaml", source).diagnostics if one.is_error]
    assert found.related == ()
