"""The examples at the end of each command's help. A test parses each with the command's own options."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("init", "init my-project --name invoices"),
    "validate": (
        "validate",
        "validate blueprints/report.yaml --fix --diff",
        "validate --format github",
    ),
    "graph": ("graph report", "graph report --format mermaid --output report.mmd"),
    "ls": ("ls", "ls report --only agent"),
    "schema": ("schema", "schema --cases"),
    "explain": ("explain FLJ201", "explain report"),
    "types": ("types", "types --check"),
    "lock": ("lock", "lock verify --strict"),
    "lock verify": ("lock verify", "lock verify --strict --format github"),
    "lock show": ("lock show",),
    "lock diff": ("lock diff", "lock diff main --exit-code"),
    "plan": ("plan report --input 'Q3 figures'", "plan report -f topic=figures --max-cost 0.50"),
    "run": (
        "run report --input 'Q3 figures'",
        "run report -f topic=figures -f pages=3 --json=run_id,output",
        "run report --input-file order.json --run-id order-17 --if-exists return",
        "run report --input 'Q3 figures' --events",
    ),
    "resume": ("resume", "resume @last", "resume 019ad2 --retry-failed"),
    "tasks": ("tasks list --status paused", "tasks show @last"),
    "tasks list": (
        "tasks list --status failed --since 2d",
        "tasks list --metadata customer=c1 --json=run_id,status",
    ),
    "tasks show": ("tasks show @last", "tasks show 019ad2 --json"),
    "tasks resume": (
        "tasks resume @last --input yes",
        "tasks resume --select 'blueprint=report pause=approve' -f ok=true --dry-run",
    ),
    "tasks send": (
        "tasks send 019ad2 paid -f amount=12",
        "tasks send --key order-17 paid --input-file payment.json",
    ),
    "tasks resolve": (
        "tasks resolve @last --as retry",
        "tasks resolve 019ad2:pay --as done --result '{\"id\": 7}'",
    ),
    "tasks retry": ("tasks retry @last", "tasks retry --select 'status=failed since=1d' --yes"),
    "tasks cancel": ("tasks cancel 019ad2", "tasks cancel --select 'blueprint=report' --dry-run"),
    "check-resume": ("check-resume", "check-resume 019ad2"),
    "trace": ("trace", "trace @last draft[1]/write --full", "trace 019ad2 --format html --output trace.html"),
    "logs": ("logs", "logs 019ad2 --follow", "logs @last --json=at,kind,path"),
    "why": ("why", "why 019ad2 decide"),
    "replay": ("replay @last", "replay 019ad2 --until draft --blueprint report"),
    "fork": (
        "fork @last --at draft --prompt writer=@prompts/short.md",
        "fork 019ad2 --at draft --model writer=openai:gpt-5-mini --count 5",
    ),
    "diff": ("diff 019ad2 019ad7",),
    "cassette": ("cassette save @last",),
    "cassette save": ("cassette save @last", "cassette save 019ad2 --output tests/report.cassette"),
    "evals": ("evals run report", "evals list --below 0.5"),
    "evals run": (
        "evals run report --cases cases/report.yaml",
        "evals run report --against main --format junit",
    ),
    "evals compare": ("evals compare 2d 9d --blueprint report",),
    "evals add": ("evals add @last --to cases/report.yaml",),
    "evals list": ("evals list --blueprint report --below 0.5", "evals list --json=run_id,score"),
    "evals show": ("evals show @last",),
    "evals rate": ("evals rate @last --score 0.8 --reason 'one wrong figure'",),
    "export": ("export @last", "export 019ad2 --output report.flujo"),
    "pull": ("pull 019ad2 --from postgresql://reader@db/flujo", "pull @last --from ./production.db"),
    "cache": ("cache why draft",),
    "cache why": ("cache why draft", "cache why draft --run 019ad2"),
    "models": ("models list",),
    "models list": ("models list",),
    "models pull": ("models pull smollm2",),
    "serve": ("serve", "serve --port 8500 --read-only", "serve --workers 4"),
    "worker": ("worker", "worker --queue mail --concurrency 4", "worker --drain --json"),
    "workers": ("workers", "workers pause all"),
    "workers pause": ("workers pause all",),
    "workers resume": ("workers resume all",),
    "queues": ("queues", "queues --json"),
    "budgets": ("budgets", "budgets --rule team --json"),
    "stats": ("stats", "stats --since 24h --by model --plot", "stats --blueprint report --json=totals"),
    "schedules": ("schedules list", "schedules apply --dry-run"),
    "schedules list": ("schedules list",),
    "schedules show": ("schedules show nightly",),
    "schedules apply": ("schedules apply --dry-run", "schedules apply"),
    "schedules pause": ("schedules pause nightly",),
    "schedules resume": ("schedules resume nightly",),
    "schedules trigger": ("schedules trigger nightly", "schedules trigger nightly --at 2026-11-28T02:00"),
    "schedules next": ("schedules next nightly --count 3",),
    "notifications": ("notifications list",),
    "notifications list": ("notifications list --state given_up",),
    "notifications redeliver": ("notifications redeliver --given-up --target ops",),
    "migrate": ("migrate --check", "migrate"),
    "keys": ("keys new", "keys rotate --dry-run"),
    "keys new": ("keys new", "keys new --id 2026-12"),
    "keys list": ("keys list",),
    "keys rotate": ("keys rotate --dry-run", "keys rotate"),
    "tokens": ("tokens create billing --role operator --expires 90d", "tokens list"),
    "tokens create": (
        "tokens create billing --role operator --expires 90d",
        "tokens create desk --role answerer --blueprint triage --metadata team=north",
    ),
    "tokens list": ("tokens list",),
    "tokens revoke": ("tokens revoke billing",),
    "tokens hash-password": ("tokens hash-password",),
    "acts": ("acts --since 7d --json", "acts --verb login_refused", "acts --run @last"),
    "purge": (
        "purge --older-than 30d --dry-run",
        "purge --older-than 90d --status completed --yes",
        "purge --subject user_id=u17 --dry-run",
    ),
    "trust": ("trust", "trust ../shared-project"),
    "doctor": ("doctor", "doctor --json"),
}
"""Command → what follows `flujo` in its examples."""


def epilog(name: str) -> str | None:
    """Return the end of a command's help; None for a command without examples."""
    if name not in EXAMPLES:
        return None
    # typer keeps the line ends of a paragraph that begins with this character.
    return "\n".join(["\b", "Examples:", *(f"  flujo {each}" for each in EXAMPLES[name])])
