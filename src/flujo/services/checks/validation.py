"""Validates blueprints without running them, and explains rules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from flujo.blueprint.analysis.project_facts import ProjectFacts
from flujo.exceptions import BlueprintError, FlujoError, LockUnreadable, SettingsError
from flujo.governance.secrets import secret_problem
from flujo.services.checks.budget_rules import require_blueprints
from flujo.services.mcp_servers import locked_servers
from flujo.settings import CONFIG_FILE, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flujo.blueprint.compiler import Compiled
    from flujo.blueprint.diagnostics import Diagnostic, Rule, Span
    from flujo.blueprint.rules.registry import Also
    from flujo.blueprint.sources.source_files import Source
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project
    from flujo.settings_executors import ExecutorTable


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of one blueprint or agent file, and of the files that it uses."""

    path: str
    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, str]
    holds_agents: bool = False
    """Whether it is an agent file."""

    @property
    def is_valid(self) -> bool:
        """Whether the blueprint may be run."""
        return not any(found.is_error for found in self.diagnostics)


def compiled(
    project: Project,
    path: str,
    overrides: Mapping[str, str] | None = None,
    *,
    source: Source | None = None,
    models: Mapping[str, str] | None = None,
    strict: bool | None = None,
    knows_servers: bool = True,
    knows_targets: bool = True,
    knows_models: bool = True,
    allows_all: bool = False,
    reads_secrets: bool = False,
    also: Also | None = None,
) -> Compiled:
    """Read, check and compile a blueprint; imports none of its callables.

    Args:
        project: the project with the files and settings.
        path: the blueprint, relative to the project's root.
        overrides: agent → model, for this run.
        source: the source of files, instead of the project's folder.
        models: agent → model, instead of the project's settings.
        strict: whether warnings are errors, instead of the project's settings.
        knows_servers: whether `mcp` of tools is compared with the settings and the lock.
        knows_targets: whether `notify`, `evaluate`, the queues of tasks and executors are compared with the
            settings.
        knows_models: whether the models of agents, their settings and prices are checked.
        allows_all: whether callables need no permission, because none of them is imported.
        reads_secrets: whether a secret that is not set is a finding.
        also: returns further findings in the tree of each file.

    Raises:
        SettingsError: an override names an unknown agent.
    """
    from flujo.blueprint.compiler import compile_blueprint

    settings, variables = project.settings, environment()
    return compile_blueprint(
        path,
        source or _files(project),
        allow_callables=None if allows_all else settings.blueprints.allow_callables,
        models=settings.models if models is None else models,
        overrides=overrides or {},
        strict=settings.strict_dsl if strict is None else strict,
        project=ProjectFacts(
            is_bounded=bool(settings.budgets.limits),
            refuses_unpriced=settings.budgets.limits.refuses_unpriced,
            resources=settings.project.resources,
            servers=_servers(project) if knows_servers else None,
            targets=settings.notify if knows_targets else None,
            queues=settings.queues if knows_targets else None,
            executors=_kinds(settings.executors) if knows_targets else None,
            evaluators=settings.evaluation.evaluators if knows_targets else None,
            providers=settings.providers if knows_models else None,
            is_priced=_prices(project) if knows_models else lambda _model: True,
            allows_tool=settings.governance.policy.allows,
            secret_problem=lambda name: secret_problem(name, variables) if reads_secrets else None,
        ),
        also=also,
    )


def _kinds(executors: Mapping[str, ExecutorTable]) -> dict[str, str]:
    return {name: table.kind for name, table in executors.items()}


def _files(project: Project) -> Source:
    from flujo.blueprint.sources.source_files import FileSource

    return FileSource(project.root)


def _prices(project: Project) -> Callable[[str], bool]:
    """Return a function that says whether the price of a model is known."""

    def is_priced(model: str) -> bool:
        from flujo.agents.list_prices import expected_cost

        settings = project.settings
        found = expected_cost(
            model, (1000, 1000), prices=settings.own_prices, providers=settings.named_providers
        )
        return found is not None

    return is_priced


def _servers(project: Project) -> dict[str, list[str] | None]:
    """Return the MCP servers of the settings, each with the names of its locked tools."""
    try:
        locked = locked_servers(project) if project.settings.mcp else {}
    except LockUnreadable:
        locked = {}  # `flujo lock verify` and a run report it
    return {name: list(locked[name]) if name in locked else None for name in project.settings.mcp}


def compiled_or_refused(project: Project, path: str) -> Pipeline:
    """Return a blueprint's tree; imports none of its callables.

    Raises:
        BlueprintError: the blueprint has errors.
    """
    result = compiled(project, path)
    if result.pipeline is None:
        raise refusal(path, result)
    return result.pipeline


def refusal(path: str, result: Compiled) -> BlueprintError:
    """Return the error for a blueprint with findings."""
    count = sum(1 for each in result.diagnostics if each.severity == "error")
    return BlueprintError(
        f"{path} has {count} error{'s' if count != 1 else ''}",
        diagnostics=result.diagnostics,
        sources=result.sources,
    )


def check(project: Project, paths: Sequence[str], also: Also | None = None) -> list[Report]:
    """Return one report per blueprint or agent file, in the order of `paths`.

    A finding in a shared file is reported once. `also` returns further findings in the tree of each file.

    Raises:
        SettingsError: a rule of `[[budgets.rule]]` names a blueprint that does not exist.
    """
    require_blueprints(project)
    seen: set[tuple[str, Span, str]] = set()
    reports = []
    for path in paths:
        result = _checked(project, path, also=also)
        in_settings = _in_settings(project, path, result)
        diagnostics = (*result.diagnostics, *in_settings)
        known = {found: (found.code, found.span, found.message) for found in diagnostics}
        fresh = tuple(found for found in diagnostics if known[found] not in seen)
        seen.update(known.values())
        sources = {**result.sources, **({CONFIG_FILE: _config_text(project)} if in_settings else {})}
        reports.append(Report(path, fresh, sources, project.holds_agents(path)))
    return reports


def _in_settings(project: Project, path: str, result: Compiled) -> Sequence[Diagnostic]:
    """Return the findings about the tables of flujo.toml that a blueprint uses."""
    if not (project.settings.schedules or project.settings.agents):
        return ()
    from flujo.services.checks.settings_findings import settings_findings

    return tuple(settings_findings(project, path, result))


def _config_text(project: Project) -> str:
    file = project.config_file
    return "" if file is None else without_secrets(file.read_text("utf-8"))


def _checked(project: Project, path: str, source: Source | None = None, also: Also | None = None) -> Compiled:
    """Return `compiled` for a blueprint; check an agent file by itself."""
    if not project.holds_agents(path):
        return compiled(project, path, source=source, reads_secrets=True, also=also)
    from flujo.blueprint.compiler import check_agents

    return check_agents(
        path,
        source or _files(project),
        allow_callables=project.settings.blueprints.allow_callables,
        strict=project.settings.strict_dsl,
        project=ProjectFacts(providers=project.settings.providers),
    )


def fix(project: Project, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the safe fixes of the blueprints at `paths` and their imports.

    Returns:
        Path → the text before and after, for each file that would change. Nothing is written.
    """
    from flujo.blueprint.rules.autofix import apply_fixes

    def findings(source: Source) -> list[Diagnostic]:
        return [one for path in paths for one in _checked(project, path, source).diagnostics]

    files = _files(project)
    changed = apply_fixes(files, findings)
    return {path: (files.read(path).decode("utf-8"), text) for path, text in changed.items()}


def without_secrets(text: str) -> str:
    """Return a file's text with apparent secrets masked; lines keep their length."""
    from flujo.blueprint.sources.secret_masking import mask

    return mask(text)


def rendered(finding: Diagnostic, sources: Mapping[str, str]) -> str:
    """Return a finding as plain text, with its source line and carets."""
    from flujo.blueprint.diagnostics import render

    return render(finding, sources)


def as_data(finding: Diagnostic) -> dict[str, Any]:
    """Return a finding as JSON data."""
    from flujo.blueprint.diagnostics import to_json

    return to_json(finding)


def schema_text(*, of_cases: bool = False) -> str:
    """Return the JSON Schema of blueprints or of files of cases, as the file that ships with Flujo."""
    name = "cases.schema.json" if of_cases else "blueprint.schema.json"
    return resources.files("flujo.blueprint").joinpath(name).read_text("utf-8")


def explain_rule(code: str) -> str:
    """Return the explanation of a rule or error as Markdown.

    Raises:
        SettingsError: the code does not exist.
    """
    wanted = code.upper()
    rules = _rules()
    found = rules.get(wanted) or next((r for r in rules.values() if r.slug == code.lower()), None)
    if found is not None:
        return f"# {found.code} {found.slug}: {found.title}\n\n{found.explanation}"
    error = next((kind for kind in _errors() if kind.code == wanted), None)
    if error is None:
        raise SettingsError(
            f"no rule or error has the code {code!r}",
            hint="codes look like FLJ204; `flujo explain` lists them",
        )
    hint = f"\n\n## What to do\n\n{error.hint}" if error.hint else ""
    return f"# {error.code} {error.__name__}\n\n{error.__doc__}{hint}"


def is_rule(name: str) -> bool:
    """Return whether a rule has this name (`unknown-key`)."""
    return any(rule.slug == name.lower() for rule in _rules().values())


def codes() -> dict[str, str]:
    """Return every code with its title, in order."""
    lines = {kind.code: (kind.__doc__ or "").splitlines()[0] for kind in reversed(list(_errors()))}
    lines |= {code: rule.title for code, rule in _rules().items()}
    return dict(sorted(lines.items()))


@cache
def _rules() -> Mapping[str, Rule]:
    # importing the compiler registers all rules
    from flujo.blueprint import compiler, diagnostics  # noqa: F401

    return diagnostics.RULES


def _errors(root: type[FlujoError] = FlujoError) -> Iterator[type[FlujoError]]:
    """Yield the errors, the general before the special; those of other code are not documented here."""
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == FlujoError.__module__:
            yield from _errors(kind)
