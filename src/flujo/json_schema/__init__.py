"""JSON Schema validation: no network access, linear-time patterns."""
