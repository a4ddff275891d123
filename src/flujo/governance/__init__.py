"""Rules for what leaves Flujo: known secrets are masked in text and refused in values."""
