"""Uses the record of a run: replays, forks, exports and pulls it, and makes a test of it."""
