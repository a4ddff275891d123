"""Validation, lock checks and pipeline checks."""
