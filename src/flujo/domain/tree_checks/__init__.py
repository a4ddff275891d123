"""The checks of `flujo.domain.checks` by subject; each yields the findings of one step."""
