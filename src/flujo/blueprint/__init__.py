"""Reads blueprints: YAML text becomes a `Pipeline`, or a list of diagnostics."""
