"""Runs files of cases, scores their outputs, and compares versions of a blueprint by the scores."""
