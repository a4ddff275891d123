"""Binding: makes a pipeline executable."""
