"""RUN: walk a `Pipeline`, asking the journal before doing anything."""
