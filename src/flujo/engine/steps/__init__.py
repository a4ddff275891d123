"""How each kind of step runs; a file's name is the YAML's `kind`."""
