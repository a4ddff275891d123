"""Executors: callables in processes of this host, or on the workers of a cluster."""
