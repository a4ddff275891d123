"""Storage of runs and journals in a database, and of large values beside it; the only package with SQL."""
