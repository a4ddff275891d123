"""Finds and masks personal data in text. Only `governance.sink` loads it, once a project asks for it."""
