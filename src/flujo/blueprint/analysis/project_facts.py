"""What the settings and the environment of a project say about names in its blueprints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """The facts that rules check a blueprint against. None stands for names that are not known."""

    is_bounded: bool = False
    """Whether the project limits what a run may use, regardless of the blueprint."""
    refuses_unpriced: bool = False
    """Whether a limit of the project refuses requests of unknown price."""
    resources: str | None = None
    """The class or function of the project's resources, `module:name`."""
    servers: Mapping[str, Collection[str] | None] | None = None
    """The MCP servers of flujo.toml with the names of their locked tools; None for one that no lock has."""
    targets: Collection[str] | None = None
    """The targets of messages in flujo.toml."""
    queues: Collection[str] | None = None
    """The queues of flujo.toml besides `default`."""
    executors: Mapping[str, str] | None = None
    """The executors of flujo.toml besides `threads`, each with its `kind`."""
    evaluators: Collection[str] | None = None
    """The evaluators of flujo.toml."""
    providers: Collection[str] | None = None
    """The providers of flujo.toml; None when the models of agents are not checked."""
    is_priced: Callable[[str], bool] = lambda _model: True
    """Returns whether the price of a model is known."""
    allows_tool: Callable[[str, str], bool] = lambda _name, _target: True
    """Returns whether flujo.toml allows a tool, by the name for models and the code behind it."""
    secret_problem: Callable[[str], str | None] = lambda _name: None
    """Returns why a variable of the environment cannot be used as a secret."""


NOTHING_KNOWN = ProjectFacts()
"""The facts of a blueprint without a project."""
