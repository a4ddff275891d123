"""REMEMBER: runs and journals in SQLite or Postgres; the only package that knows SQL."""
