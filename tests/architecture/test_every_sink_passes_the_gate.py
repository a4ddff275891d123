"""Every place where Flujo writes output uses `governance/sink.py`, or is listed here with a reason."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from architecture.source import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

GATED = {
    "cli/terminal.py": (
        {"result", "text", "data"},
        "stdout and stderr of every command, and files with their results",
    ),
    "governance/logs.py": ({"text"}, "makes the loggers"),
    "governance/log_lines.py": ({"text"}, "formats the lines of every logger, and writes them to stderr"),
    "telemetry/run_spans.py": ({"text"}, "makes the spans for a collector"),
    "services/runs/hooks.py": (
        {"redacted", "redacted_values"},
        "sends events to hooks, streams and progress",
    ),
    "services/runs/feed_writer.py": ({"text"}, "writes the feeds of runs for those who follow them"),
    "services/runs/notices.py": ({"text"}, "writes the messages about runs for webhooks and callables"),
    "services/replay/export.py": ({"data", "admit"}, "writes runs as files"),
    "services/replay/cassette_saving.py": ({"data", "result"}, "makes cassettes of runs"),
    "services/cases/collecting.py": ({"data"}, "makes cases of runs"),
    "serve/pages/rendering.py": ({"result"}, "makes the pages of the server"),
    "engine/journal.py": ({"admit"}, "records the values of runs, which every sink shows"),
    "engine/error_info.py": ({"text"}, "makes the errors of runs, which every sink shows"),
}
"""Modules that write or send output for people and programs, the ways through the gate that they use, and what
they send."""

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
    "cli/commands/cassette.py": "the cassette that `cassette_saving` has made",
    "cli/commands/validate.py": "the project's own blueprint, with safe fixes",
    "testing/cassettes.py": "the cassette that `cassette_saving` has made",
    "agents/connectivity.py": "asks servers of models whether they answer",
    "agents/local_model.py": "checks that llama.cpp answers on this machine",
    "services/checks/locking.py": "flujo.lock, from the project's own sources",
    "services/runs/webhooks.py": "sends the messages that `notices` has written",
    "agents/mcp_transport.py": "calls the tools of servers with the arguments of their calls",
    "http_client.py": "asks a server with the values of the caller",
    "services/project/trust.py": "the paths of trusted projects, for this user",
    "agents/local_server.py": "llama.cpp's log and the address file, readable by the user alone",
    "agents/local_weights.py": "weights of a model, and pip's log",
    "state/providers.py": "values behind references: stored as they are",
    "services/executors/ray_driver.py": "the project's own modules, for the workers of a cluster",
    "testing/crash_testing.py": "marks of a test",
    "testing/crash_points.py": "results of a test process",
}
"""Modules whose output cannot hold a secret of a run, or stores values, which are never redacted."""

_WRITERS = {
    *("write_text", "write_bytes", "replace_file", "echo", "print", "getLogger", "Console", "basicConfig"),
    *("AsyncClient", "urlopen", "console"),
}
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
        "telemetry/run_spans.py",  # the SDK sends what it makes
        "services/replay/cassette_saving.py",  # a command writes the file
        "serve/pages/rendering.py",  # the server sends what it makes
        "engine/journal.py",  # its values are recorded, and shown by others
        "engine/error_info.py",  # and so are its errors
    }


def test_every_gated_sink_uses_its_ways_through_the_gate() -> None:
    assert {module: _ways(modules()[module]) for module in GATED} == {
        module: ways for module, (ways, _) in GATED.items()
    }


def _ways(tree: ast.Module) -> set[str]:
    """Return the methods of the gate that a module calls, and the functions that mask events."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(
                value=ast.Name(id="GATE"), attr=("text" | "result" | "data" | "admit") as method
            ):
                found.add(method)
            case ast.Name(id=("redacted" | "redacted_values") as function):
                found.add(function)
            case _:
                pass
    return found


def test_every_screen_escapes_control_characters() -> None:
    screens = {module for module in GATED if module.startswith(("cli/", "governance/"))}
    for module in sorted(screens | {"cli/progress.py", "cli/download.py"}):
        names = {node.id for node in ast.walk(modules()[module]) if isinstance(node, ast.Name)}
        assert names & {"visible", "visible_line"}, module


def test_only_the_terminal_writes_to_the_streams_of_a_command() -> None:
    writers = {"cli/terminal.py", "cli/app.py", "cli/streams.py"}  # `app` prints the version and the help
    found = {module for module, tree in modules().items() if module.startswith("cli/") and any(_sinks(tree))}
    files = {"cli/commands/cassette.py", "cli/commands/validate.py"}
    assert found - writers - files <= {"cli/progress.py", "cli/download.py"}


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
