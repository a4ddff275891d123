"""The project: its root, settings, inputs and imports."""
