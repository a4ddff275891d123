"""Variables in the texts of flujo.toml: `${NAME}`."""

from __future__ import annotations

import re

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""One variable; its group is the name."""


def variables(text: str) -> list[str]:
    """Return the names of the variables in a text."""
    return VARIABLE.findall(text)


def is_variable(text: str) -> bool:
    """Return whether a text is one variable and nothing else."""
    return VARIABLE.fullmatch(text) is not None
