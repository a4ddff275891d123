"""Read-only views: runs, traces, graphs and explanations."""
