"""The fields of each command's JSON, for `--json=FIELDS`: checked before the command does anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

WANTS_JSON = "flujo.json"
"""The key in typer's `meta` under which stands whether the command line asks for JSON."""

WANTS_EVENTS = "flujo.events"
"""The key in typer's `meta` under which stands whether the command line asks for events."""

FIELDS_CHOSEN = "flujo.fields"
"""The key in typer's `meta` under which the fields of `--json=FIELDS` stand."""

_RESULT = "run_id status output error pauses ends_by usage unconfirmed in_doubt steps"
_RUN = (
    "run_id pipeline status display_status kind parent parent_path continues user_id metadata usage "
    "created_at updated_at deadline_at ends_by error questions waits answer queue cursor"
)
_SCHEDULE = (
    "name pipeline state place cron timezone catch_up overlap jitter_s queue priority next_at last_at "
    "last_run skipped"
)
_EVALUATION = (
    "key run_id path pipeline user_id closure lock_digest evaluator version score reason error by "
    "cost_usd created_at"
)
_ACCESS = "name role blueprints queues metadata state created_at expires_at revoked_at"
_KEYS = "writer by_key plain unknown left"
_EXPORT = "run_id file bytes masked"

FIELDS = {
    "init": "name about",
    "validate": "path valid diagnostics",
    "ls": "blueprint what name detail",
    "explain": "code title explanation blueprint story",
    "types": "files changed untold",
    "lock verify": "matches differences notes",
    "lock show": "agents blueprints libraries settings callables mcp",
    "lock diff": "matches changes affects waiting_runs",
    "plan": (
        "blueprint agents total unbounded unknown_price history most_usd assumed_tokens_of_unknown_values"
    ),
    "run": f"{_RESULT} queue note name path description",
    "resume": f"{_RESULT} {_RUN}",
    "tasks list": _RUN,
    "tasks show": (
        f"{_RUN} input context output continued_as states pauses events in_doubt acts children trace"
    ),
    "tasks resume": _RESULT,
    "tasks send": "event_id taken repeated",
    "tasks resolve": _RESULT,
    "tasks retry": _RESULT,
    "tasks cancel": f"{_RUN} in_doubt",
    "check-resume": (
        "run_id blueprint status can_continue reason kept migrated changed conflicts lost migrations"
    ),
    "trace": (
        "run_id lock_digest warnings acts path kind status attempts decision state input files call "
        "output error not_cached fell_back agent chosen usage unconfirmed seconds work_seconds "
        "attempts_made failed_attempts began_at changed model task detail transcripts children tracebacks"
    ),
    "logs": "offset at kind path attempt seconds usage error value text provisional number",
    "why": "run_id path end decisions retried answer input output note",
    "replay": f"{_EXPORT} status entries not_compared output difference",
    "fork": f"{_RESULT} parent at copied changes own_usage seconds stubbed outcomes forks",
    "diff": "one other first differences prompts",
    "cassette save": "run_id file exchanges tools calls answers untried",
    "evals compare": "version against verdict same_version left_out more_cases more_usd evaluators paired",
    "evals list": _EVALUATION,
    "evals show": "run_id evaluations pending blueprint evaluator count mean low high least",
    "evals rate": _EVALUATION,
    "export": _EXPORT,
    "pull": "run_id status was runs new",
    "cache why": "run_id path result key why parts nearest lookups",
    "models list": "name about license size download_size path present",
    "models pull": "name path",
    "worker": "event run_id pipeline detail resumed skipped waiting",
    "workers": "worker owner host pid version queues concurrency state started_at seen_at silent_s runs",
    "queues": "queue depth delayed in_flight paused parked oldest_s limits",
    "budgets": "rule scope limit allowed used held left forecast window_starts_at window_ends_at",
    "stats": "since until every by blueprint periods totals queues scores",
    "schedules list": _SCHEDULE,
    "schedules show": f"{_SCHEDULE} next acts",
    "schedules apply": "name change keys",
    "schedules trigger": "run_id existed",
    "schedules next": "",
    "notifications list": (
        "id webhook_id run_id target event state tries error payload created_at next_try_at delivered_at "
        "given_up_at"
    ),
    "notifications redeliver": "redelivered",
    "keys list": _KEYS,
    "keys rotate": f"{_KEYS} rows values damaged is_overwritten dry_run",
    "tokens create": f"{_ACCESS} secret",
    "tokens list": _ACCESS,
    "acts": "run_id at by via verb object before after",
    "migrate": "database before now needed",
    "purge": (
        "runs contents answers messages events dry_run field subject at by via database tables "
        "is_overwritten out_of_reach"
    ),
    "trust": "project file",
    "doctor": "settings checks runs dry_run",
}
"""Command → the fields of its JSON: of an object, of each object of a list, or of each line."""


def require_known(name: str, fields: Sequence[str]) -> None:
    """Check the fields that `--json=FIELDS` selects of the output of a command.

    Raises:
        SettingsError: the command does not write a field.
    """
    known = list(dict.fromkeys(FIELDS.get(name, "").split()))
    for field in fields:
        if field not in known:
            raise SettingsError(
                f"--json: {field!r} is not a field of `{command('flujo', *name.split())}`",
                hint=f"the fields are {', '.join(known)}" if known else "leave the fields out: `--json`",
            )
