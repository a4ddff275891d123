"""Recorded runs: the walk of the engine over a record, without a call and without a write."""
