"""Scores of outputs: the evaluators of a project, the runs that evaluate, and the ratings of people."""
