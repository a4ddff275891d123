"""READ: YAML text becomes a `Pipeline`, or a list of diagnostics that say why not."""
