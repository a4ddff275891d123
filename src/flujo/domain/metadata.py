"""The metadata of runs: facts by which people find them."""

from __future__ import annotations

import re

METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
"""A key, at any depth. It needs no quoting in a path of SQLite or Postgres."""
