"""Imports inside functions exist only for start-up time, and their number never grows.

Everything else is imported at the top of its module. The reasons, by folder:

- `cli`, `__main__`: a command imports its services when it runs, so that help and completion are fast.
- `services`: a command that only reads a project loads no agents, no SQL, no expressions and no OpenTelemetry; the
  HTTP client is loaded with the first webhook.
- `agents`: importing pydantic-ai or llama.cpp takes longer than most commands; boto3 is optional.
- `json_schema`, `blueprint`: jsonschema, RE2 and CEL are loaded with the first schema, pattern and expression.
- `state`: Alembic and each driver are loaded with the database that needs them.
- `telemetry`: the SDK is loaded by its thread, with the first run of a process that sends something.
- `governance`: the tables of phone numbers and national ids are loaded once a project masks personal data, and spaCy
  with the first text whose names are masked; the package that encrypts, with the first encrypted value.
- `testing`: the pytest plugin is loaded in each session of a project, also of one without cassettes.
- `domain`: pydantic's adapters are built with the first value that needs one.
"""

from __future__ import annotations

import ast
from functools import cache

from architecture.source import modules

CEILING = {
    "__main__.py": 2,
    "agents/chat.py": 7,
    "agents/function.py": 3,
    "agents/local_model.py": 5,
    "agents/local_server.py": 1,
    "agents/providers.py": 2,
    "agents/structured_output.py": 1,
    "blueprint/expressions/cel.py": 2,
    "cli/app.py": 2,
    "cli/cases_commands.py": 15,
    "cli/columns.py": 2,
    "cli/commands/acts.py": 4,
    "cli/commands/budgets.py": 2,
    "cli/commands/cache.py": 4,
    "cli/commands/cassette.py": 3,
    "cli/commands/check_resume.py": 2,
    "cli/commands/diff.py": 3,
    "cli/commands/doctor.py": 3,
    "cli/commands/evals.py": 6,
    "cli/commands/explain.py": 3,
    "cli/commands/export.py": 1,
    "cli/commands/fork.py": 9,
    "cli/commands/graph.py": 4,
    "cli/commands/init.py": 1,
    "cli/commands/keys.py": 7,
    "cli/commands/lock.py": 7,
    "cli/commands/logs.py": 3,
    "cli/commands/ls.py": 2,
    "cli/commands/migrate.py": 1,
    "cli/commands/models.py": 3,
    "cli/commands/plan.py": 5,
    "cli/commands/pull.py": 4,
    "cli/commands/purge.py": 5,
    "cli/commands/queues.py": 2,
    "cli/commands/replay.py": 4,
    "cli/commands/resume.py": 3,
    "cli/commands/run.py": 8,
    "cli/commands/schedules.py": 2,
    "cli/commands/schema.py": 1,
    "cli/commands/serve.py": 2,
    "cli/commands/stats.py": 6,
    "cli/commands/tasks.py": 23,
    "cli/commands/tokens.py": 8,
    "cli/commands/trace.py": 10,
    "cli/commands/trust.py": 1,
    "cli/commands/types.py": 1,
    "cli/commands/validate.py": 7,
    "cli/commands/why.py": 3,
    "cli/commands/worker.py": 5,
    "cli/commands/workers.py": 4,
    "cli/completion.py": 3,
    "cli/download.py": 1,
    "cli/errors.py": 3,
    "cli/exporting.py": 1,
    "cli/invocation.py": 1,
    "cli/lock_rendering.py": 3,
    "cli/options.py": 6,
    "cli/progress.py": 5,
    "cli/report_formats.py": 3,
    "cli/run_command.py": 5,
    "cli/terminal.py": 2,
    "domain/canonical.py": 2,
    "domain/context_references.py": 1,
    "domain/values.py": 1,
    "governance/key_ring.py": 1,
    "governance/personal_data/names.py": 1,
    "governance/sink.py": 1,
    "json_schema/re2_patterns.py": 1,
    "json_schema/validator.py": 2,
    "services/admin/doctor.py": 13,
    "services/admin/type_export.py": 12,
    "services/binding/binding.py": 5,
    "services/checks/locking.py": 18,
    "services/checks/validation.py": 10,
    "services/inspection/task_client.py": 2,
    "services/executors/named.py": 4,
    "services/executors/process_worker.py": 2,
    "services/executors/worker.py": 1,
    "services/mcp_servers.py": 2,
    "services/project/inputs.py": 2,
    "services/project/project.py": 3,
    "services/project/trust.py": 1,
    "services/replay/sources.py": 1,
    "services/resources.py": 1,
    "services/runs/answers.py": 1,
    "services/runs/deliveries.py": 1,
    "services/telemetry.py": 1,
    "services/workspace.py": 8,
    "state/listener.py": 1,
    "state/providers.py": 1,
    "state/sql/database.py": 2,
    "state/sql/errors.py": 1,
    "state/sql/migrations.py": 4,
    "telemetry/telemetry.py": 1,
    "testing/pytest_plugin.py": 4,
}
"""The allowed number of imports inside functions per module. A number only shrinks; new modules have none."""


def test_no_module_imports_more_inside_functions() -> None:
    more = {name: count for name, count in found().items() if count > CEILING.get(name, 0)}
    assert more == {}, "import at the top of the module"


def test_the_ceiling_is_lowered_when_imports_move_to_the_top() -> None:
    now = found()
    less = {name: now.get(name, 0) for name, most in CEILING.items() if now.get(name, 0) < most}
    assert less == {}, "lower the numbers"


@cache
def found() -> dict[str, int]:
    """Return how many imports each module has inside functions."""
    counts = {name: len(set(_inside_functions(tree))) for name, tree in modules().items()}
    return {name: count for name, count in counts.items() if count}


def _inside_functions(tree: ast.Module) -> list[int]:
    """Return the lines of imports inside functions."""
    return [
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
