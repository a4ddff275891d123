"""REMEMBER: runs and journals in a database, the only package that knows SQL; large values beside it."""
