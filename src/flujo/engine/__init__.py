"""Executes pipelines, and records each step in the journal."""
