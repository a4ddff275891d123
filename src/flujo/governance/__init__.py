"""Masks secrets in text, refuses them in values, and escapes control characters."""
