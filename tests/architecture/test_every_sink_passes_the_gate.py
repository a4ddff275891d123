"""Every place where Flujo writes output uses `governance/sink.py`, or is listed here with a reason."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from architecture.source import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

GATED = {
    "cli/terminal.py": "stdout and stderr of every command, and files with their results",
    "governance/logs.py": "makes the loggers",
    "governance/log_lines.py": "formats the lines of every logger",
    "telemetry/run_spans.py": "makes the spans for a collector",
    "services/runs/hooks.py": "sends events to hooks, streams and progress",
    "services/runs/feed_writer.py": "writes the feeds of runs for those who follow them",
    "services/runs/notices.py": "writes the messages about runs for webhooks and callables",
}
"""Modules that write or send output for people and programs. Each names the gate in its source."""

NOT_OF_A_RUN = {
    "__main__.py": "the version and the help",
    "cli/app.py": "the version and the help",
    "cli/streams.py": "that the output is lost, in words of our own",
    "cli/download.py": "draws the bar of a download; its texts are our own",
    "cli/progress.py": "draws the tree of events that `hooks` has redacted",
    "blueprint/language/editor_schema.py": "the JSON Schema of the language",
    "services/admin/scaffold.py": "files of a new project, from the template",
    "services/admin/type_export.py": "stubs of the project's own Python types",
    "services/project/project.py": "flujo.lock and files of types, from the project's own sources",
    "services/project/trust.py": "the paths of trusted projects, for this user",
    "agents/local_server.py": "llama.cpp's log and the address file, readable by the user alone",
    "agents/local_weights.py": "weights of a model, and pip's log",
    "state/providers.py": "values behind references: stored as they are",
    "testing/crash_testing.py": "marks of a test",
    "testing/crash_points.py": "results of a test process",
}
"""Modules whose output cannot hold a secret of a run, or stores values, which are never redacted."""

_WRITERS = {"write_text", "write_bytes", "echo", "print", "getLogger", "Console", "basicConfig"}
_STREAMS = {"out", "err", "file", "stream", "stdout", "stderr", "log", "output", "sink"}


def test_every_sink_is_listed() -> None:
    found = {module for module, tree in modules().items() if any(_sinks(tree))}
    assert found - GATED.keys() - NOT_OF_A_RUN.keys() == set(), (
        "send it through flujo.governance, then list it"
    )


def test_no_list_names_a_module_without_a_sink() -> None:
    found = {module for module, tree in modules().items() if any(_sinks(tree))}
    assert (GATED.keys() | NOT_OF_A_RUN.keys()) - found == {
        "services/runs/hooks.py",  # it calls its watchers
        "services/runs/feed_writer.py",  # its lines are read from the store
        "services/runs/notices.py",  # its texts are sent from the outbox
        "governance/log_lines.py",  # its handler writes
        "telemetry/run_spans.py",  # the SDK sends what it makes
    }


def test_every_gated_sink_uses_the_gate() -> None:
    for module in GATED:
        names = {node.id for node in ast.walk(modules()[module]) if isinstance(node, ast.Name)}
        assert names & {"GATE", "redacted"}, module


def test_every_screen_escapes_control_characters() -> None:
    screens = {module for module in GATED if module.startswith(("cli/", "governance/"))}
    for module in sorted(screens | {"cli/progress.py", "cli/download.py"}):
        names = {node.id for node in ast.walk(modules()[module]) if isinstance(node, ast.Name)}
        assert names & {"visible", "visible_line"}, module


def test_only_the_terminal_writes_to_the_streams_of_a_command() -> None:
    writers = {"cli/terminal.py", "cli/app.py", "cli/streams.py"}  # `app` prints the version and the help
    found = {module for module, tree in modules().items() if module.startswith("cli/") and any(_sinks(tree))}
    assert found - writers <= {"cli/progress.py", "cli/download.py"}


def test_loggers_are_made_by_the_gate_alone() -> None:
    for module, tree in modules().items():
        made = [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "getLogger"
        ]
        assert not made or module == "governance/logs.py", module


def _sinks(tree: ast.Module) -> Iterator[str]:
    """Yield the calls that write to a stream, a file or a log."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _WRITERS:
                yield name
            case ast.Attribute(attr="write", value=ast.Name(id="os")):
                yield "os.write"
            case ast.Attribute(attr="write", value=ast.Name(id=stream) | ast.Attribute(attr=stream)):
                if stream in _STREAMS:
                    yield f"{stream}.write"
            case ast.Attribute(attr="open") | ast.Name(id="open") if _opens_for_writing(node):
                yield "open"
            case _:
                pass


def _opens_for_writing(call: ast.Call) -> bool:
    modes = [
        each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    return any(set(mode) <= set("rwaxb+t") and set(mode) & set("wax") for mode in modes)
