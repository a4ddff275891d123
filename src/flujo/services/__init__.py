"""USE CASES: the only place where reading, asking, running and remembering meet."""
