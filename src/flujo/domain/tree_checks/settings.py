"""Checks of the settings of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.agents import AgentSpec
from flujo.domain.model_names import unknown_setting
from flujo.domain.tree_checks.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.tree_checks.findings import Site


def unknown_settings(site: Site) -> Iterator[Finding]:
    """Report the settings of a step's agents that no model has. In a blueprint they have their own line."""
    for agent in (each for each in site.step.names() if isinstance(each, AgentSpec)):
        for name in agent.model_settings:
            if (problem := unknown_setting(name, agent.model_settings)) is not None:
                message = f"step {site.path!r}: {problem.message}"
                is_warning = not problem.is_certain
                yield Finding("FLJ152", site.place, message, problem.hint, ("agent",), is_warning=is_warning)
