"""The execution of each kind of step; a file has the name of the `kind` in YAML."""
