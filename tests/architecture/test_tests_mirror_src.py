"""The tests of `src/flujo/a/b.py` are in `tests/a/test_b.py`, or the list names their place."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from architecture.source import ROOT, modules

TESTS = ROOT / "tests"

COVERED_BY = {
    # A folder that one suite covers as a whole.
    "blueprint/rules/": "blueprint/test_corpus.py",
    "cli/commands/": "cli/test_seeing.py",
    "testing/store_suite/": "conformance/test_stores.py",
    "telemetry/": "telemetry/test_telemetry.py",
    # A module that is covered by the tests of another one.
    "agents/answer_text.py": "agents/test_structured_output.py",
    "agents/connection.py": "agents/test_chat.py",
    "agents/connectivity.py": "cli/test_upkeep.py",
    "agents/damaged_json.py": "agents/test_structured_output.py",
    "agents/error_translation.py": "agents/test_chat.py",
    "agents/no_model.py": "services/recorded/test_replay.py",
    "domain/differences.py": "services/recorded/test_replay.py",
    "domain/step_results.py": "services/runs/test_execution.py",
    "engine/recorded_journal.py": "services/recorded/test_replay.py",
    "engine/recorded_steps.py": "services/recorded/test_replay.py",
    "services/recorded/recorded_binding.py": "services/recorded/test_replay.py",
    "services/runs/replays.py": "cli/commands/test_replay.py",
    "domain/metadata.py": "state/test_metadata_conditions.py",
    "domain/conversations.py": "engine/steps/test_granular.py",
    "engine/agent_identity.py": "engine/steps/test_granular.py",
    "engine/agent_request.py": "engine/steps/test_granular.py",
    "engine/judgement.py": "engine/steps/test_granular.py",
    "services/inspection/otlp.py": "cli/test_trace_otlp.py",
    "services/inspection/task_traces.py": "engine/test_background.py",
    "services/inspection/recorded_scope.py": "services/inspection/test_why.py",
    "services/inspection/trace_tree.py": "services/inspection/test_trace.py",
    "services/runs/background.py": "engine/test_background.py",
    "state/sql/queries.py": "conformance/test_stores.py",
    "domain/outbox.py": "services/runs/test_notices.py",
    "services/admin/messages.py": "cli/commands/test_notifications.py",
    "services/runs/webhooks.py": "services/runs/test_deliveries.py",
    "state/memory_outbox.py": "conformance/test_stores.py",
    "state/sql/stuck.py": "cli/test_upkeep.py",
    "state/sql/outbox.py": "conformance/test_stores.py",
    "state/writer/families.py": "conformance/test_stores.py",
    "services/inspection/transcripts.py": "engine/test_transcripts.py",
    "services/inspection/imported_checks.py": "cli/test_never_cached.py",
    "agents/request_reports.py": "telemetry/test_telemetry.py",
    "agents/settings.py": "agents/test_chat.py",
    "blueprint/analysis/expression_sites.py": "blueprint/test_corpus.py",
    "blueprint/analysis/inference.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/analysis/scope.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/analysis/state_scopes.py": "blueprint/test_corpus.py",
    "blueprint/analysis/unit.py": "blueprint/test_corpus.py",
    "blueprint/closure.py": "blueprint/test_compiler.py",
    "blueprint/expressions/cel.py": "blueprint/expressions/test_evaluators.py",
    "blueprint/expressions/cel_ast.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/expressions/cel_lexicon.py": "blueprint/expressions/test_evaluators.py",
    "blueprint/expressions/error_messages.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/expressions/name_suggestions.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/language/field_descriptions.py": "blueprint/language/test_editor_schema.py",
    "blueprint/language/model_lookup.py": "blueprint/language/test_validation.py",
    "blueprint/language/roles.py": "blueprint/test_compiler.py",
    "blueprint/language/traversal.py": "blueprint/test_compiler.py",
    "blueprint/loader.py": "blueprint/test_compiler.py",
    "blueprint/lock/messages.py": "blueprint/lock/test_diff.py",
    "blueprint/lock/model_pinning.py": "cli/commands/test_lock.py",
    "blueprint/lock/snapshot.py": "blueprint/lock/test_diff.py",
    "blueprint/lock/toml_writer.py": "blueprint/lock/test_lockfile.py",
    "blueprint/lock/word_diff.py": "blueprint/lock/test_diff.py",
    "blueprint/reading/decoding.py": "blueprint/reading/test_reader.py",
    "blueprint/reading/scalars.py": "blueprint/reading/test_reader.py",
    "blueprint/reading/source_map.py": "blueprint/reading/test_reader.py",
    "blueprint/reading/syntax_rules.py": "blueprint/reading/test_reader.py",
    "blueprint/reading/yaml_errors.py": "blueprint/reading/test_reader.py",
    "blueprint/schemas/algebra.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/schemas/diff.py": "blueprint/lock/test_diff.py",
    "blueprint/schemas/keywords.py": "blueprint/schemas/test_checks.py",
    "blueprint/schemas/shapes.py": "blueprint/expressions/test_type_checker.py",
    "blueprint/schemas/validator.py": "blueprint/schemas/test_checks.py",
    "blueprint/sources/annotation_schemas.py": "blueprint/sources/test_signatures.py",
    "blueprint/sources/secret_detection.py": "cli/test_secrets_in_findings.py",
    "blueprint/sources/secret_masking.py": "cli/test_secrets_in_findings.py",
    "blueprint/sources/type_stubs.py": "cli/commands/test_types.py",
    "cli/bulk.py": "cli/test_many_runs.py",
    "cli/confirmation.py": "cli/test_many_runs.py",
    "cli/fork_rendering.py": "cli/commands/test_fork.py",
    "services/replay/fork.py": "cli/commands/test_fork.py",
    "cli/run_list.py": "cli/test_many_runs.py",
    "cli/task_rendering.py": "cli/test_many_runs.py",
    "cli/app.py": "cli/test_help.py",
    "cli/root_help.py": "cli/test_help.py",
    "cli/diagnostic_rendering.py": "cli/commands/test_validate.py",
    "cli/download.py": "cli/test_upkeep.py",
    "cli/exit_codes.py": "cli/test_errors.py",
    "cli/invocation.py": "cli/test_errors.py",
    "cli/listing.py": "cli/test_seeing.py",
    "cli/lock_rendering.py": "cli/commands/test_lock.py",
    "cli/options.py": "cli/test_help.py",
    "cli/outline.py": "cli/test_seeing.py",
    "cli/report_formats.py": "cli/test_validate_formats.py",
    "cli/run_command.py": "cli/commands/test_run.py",
    "cli/terminal.py": "cli/test_errors.py",
    "cli/why_rendering.py": "cli/test_why.py",
    "cli/trace_rendering.py": "cli/test_seeing.py",
    "client.py": "manual/test_manual.py",
    "domain/acts.py": "conformance/test_stores.py",
    "domain/current_step.py": "telemetry/test_telemetry.py",
    "domain/model_requests.py": "telemetry/test_telemetry.py",
    "domain/process_counts.py": "services/runs/test_queue_metrics.py",
    "domain/trace_ids.py": "telemetry/test_telemetry.py",
    "domain/agents.py": "services/checks/test_pipeline_checks.py",
    "domain/context_references.py": "services/binding/test_blob_references.py",
    "domain/events.py": "governance/test_events.py",
    "domain/executor.py": "agents/test_thread_pool.py",
    "domain/ledger.py": "engine/test_budget.py",
    "domain/models.py": "services/binding/test_lazy_context.py",
    "domain/outcomes.py": "engine/test_interpreter.py",
    "domain/pipeline.py": "services/checks/test_pipeline_checks.py",
    "domain/ports.py": "typing/test_typing.py",
    "domain/store.py": "conformance/test_stores.py",
    "engine/questions.py": "services/runs/test_deadlines.py",
    "state/requests.py": "conformance/test_stores.py",
    "state/sql/requests.py": "conformance/test_stores.py",
    "services/runs/sending.py": "cli/test_sending.py",
    "services/runs/waits.py": "engine/steps/test_event.py",
    "domain/sent_events.py": "conformance/test_stores.py",
    "domain/steps/": "services/checks/test_pipeline_checks.py",
    "domain/values.py": "services/checks/test_pipeline_checks.py",
    "engine/answer_cache.py": "engine/test_step_cache.py",
    "engine/attempt.py": "engine/test_interpreter.py",
    "engine/attempts.py": "engine/test_interpreter.py",
    "engine/branches.py": "engine/steps/test_parallel.py",
    "engine/cache_key.py": "engine/test_step_cache.py",
    "engine/call_layers.py": "engine/test_interpreter.py",
    "engine/context_isolation.py": "engine/steps/test_parallel.py",
    "engine/frame.py": "engine/test_interpreter.py",
    "engine/idempotent_calls.py": "durability/test_effects.py",
    "engine/journal.py": "durability/test_stop_and_resume.py",
    "cli/event_loop.py": "cli/test_signals.py",
    "engine/limits.py": "engine/test_composite_attempts.py",
    "engine/step_meter.py": "engine/test_budget.py",
    "engine/scopes.py": "engine/test_interpreter.py",
    "engine/steps/": "engine/test_interpreter.py",
    "json_schema/strict_json.py": "json_schema/test_coercion.py",
    "json_schema/validator.py": "json_schema/test_linear_validator.py",
    "services/admin/doctor.py": "cli/test_upkeep.py",
    "services/admin/local_models.py": "agents/test_local_weights.py",
    "services/admin/scaffold.py": "cli/commands/test_init.py",
    "services/admin/type_export.py": "cli/commands/test_types.py",
    "services/binding/contexts.py": "services/binding/test_lazy_context.py",
    "services/binding/code_names.py": "services/binding/test_identity.py",
    "services/binding/module_origins.py": "services/binding/test_identity.py",
    "services/binding/source_values.py": "cli/commands/test_cache.py",
    "services/checks/type_compatibility.py": "services/checks/test_pipeline_checks.py",
    "services/inspection/graph_formats.py": "services/inspection/test_graph.py",
    "services/inspection/inventory.py": "cli/test_seeing.py",
    "services/given.py": "services/inspection/test_task_client.py",
    "services/inspection/tasks.py": "services/inspection/test_task_client.py",
    "services/inspection/schedule_views.py": "services/inspection/test_schedule_client.py",
    "services/runs/task_actions.py": "services/inspection/test_task_client.py",
    "services/project/git.py": "cli/test_lock_in_ci.py",
    "services/project/recovery_policy.py": "durability/test_recovery.py",
    "services/read_blueprint.py": "manual/test_manual.py",
    "services/runs/blueprint_runs.py": "cli/commands/test_resume.py",
    "services/runs/changes.py": "cli/commands/test_resume.py",
    "services/runs/hooks.py": "services/runs/test_streaming.py",
    "services/runs/in_flight.py": "services/runs/test_runner.py",
    "services/runs/pipeline_registry.py": "services/runs/test_runner.py",
    "services/runs/recovery.py": "durability/test_recovery.py",
    "services/runs/run_request.py": "services/runs/test_bad_input.py",
    "services/runs/worker.py": "durability/test_programs.py",
    "settings_tables.py": "test_settings.py",
    "state/memory_queues.py": "conformance/test_stores.py",
    "state/queue_bell.py": "state/sql/test_queue.py",
    "state/sql/postgres_listener.py": "state/sql/test_queue.py",
    "state/sql/workers.py": "conformance/test_stores.py",
    "state/events.py": "conformance/test_stores.py",
    "state/memory_cache.py": "conformance/test_caches.py",
    "state/memory_events.py": "conformance/test_stores.py",
    "state/memory_store.py": "conformance/test_stores.py",
    "state/rules.py": "conformance/test_stores.py",
    "state/schedule_rules.py": "conformance/test_stores.py",
    "state/sql/schedules.py": "conformance/test_stores.py",
    "state/sql/durability.py": "cli/test_upkeep.py",
    "state/sql/events.py": "durability/test_event_races.py",
    "state/sql/functions.py": "state/sql/test_listing.py",
    "state/sql/lost_commits.py": "state/writer/test_writer.py",
    "state/sql/postgres_arrays.py": "state/sql/test_costs.py",
    "state/sql/retention.py": "services/admin/test_purge.py",
    "state/sql/statements.py": "state/sql/test_costs.py",
    "state/sql/tables.py": "state/sql/test_migrations.py",
    "state/store.py": "conformance/test_stores.py",
    "state/wakes.py": "conformance/test_stores.py",
    "state/writer/events.py": "durability/test_event_races.py",
    "testing/cache_suite.py": "conformance/test_caches.py",
    "testing/crash_points.py": "durability/test_crash_points.py",
    "testing/crash_testing.py": "durability/test_rehearsal.py",
    "testing/simulation.py": "durability/test_simulation.py",
    "testing/sql_probe.py": "state/sql/test_costs.py",
    "domain/recorded_run.py": "conformance/test_stores.py",
    "services/inspection/file_traces.py": "cli/commands/test_pull.py",
    "services/inspection/task_detail.py": "cli/commands/test_pull.py",
    "services/replay/cassette.py": "testing/test_cassettes.py",
    "services/replay/cassette_messages.py": "testing/test_cassettes.py",
    "services/replay/cassette_saving.py": "testing/test_cassettes.py",
    "services/replay/recorded_agents.py": "testing/test_cassettes.py",
    "services/replay/tape.py": "testing/test_cassettes.py",
    "services/replay/pull.py": "cli/commands/test_pull.py",
    "services/replay/recording.py": "services/replay/test_export.py",
    "services/replay/run_file.py": "services/replay/test_export.py",
    "services/replay/run_lines.py": "services/replay/test_export.py",
    "services/replay/sources.py": "cli/commands/test_pull.py",
    "state/sql/arrivals.py": "conformance/test_stores.py",
    "toml_file.py": "test_settings.py",
}
"""Modules without a test file of their own, each with the one that covers it. The list only shrinks."""


def test_every_module_has_mirrored_tests_or_is_on_the_list() -> None:
    missing = [
        module for module in without_tests() if module not in COVERED_BY and folder(module) not in COVERED_BY
    ]
    assert missing == [], "write `tests/a/test_b.py`"


def test_the_list_holds_only_modules_without_tests_of_their_own() -> None:
    needed = {name for module in without_tests() for name in (module, folder(module))}
    assert COVERED_BY.keys() - needed == set(), "remove them from the list"


@pytest.mark.parametrize("tests", sorted(set(COVERED_BY.values())))
def test_the_listed_tests_exist(tests: str) -> None:
    assert (TESTS / tests).is_file()


def without_tests() -> list[str]:
    """Return the modules without a test file of their own."""
    return [module for module in modules() if not module.endswith("__.py") and not mirrored(module)]


def mirrored(module: str) -> bool:
    """Return whether the tests of a module are in the mirrored place."""
    path = PurePosixPath(module)
    return (TESTS / path.parent / f"test_{path.name}").is_file()


def folder(module: str) -> str:
    """Return the folder of a module as the list writes it."""
    return f"{PurePosixPath(module).parent}/"
