"""What this project's blueprints may call."""
