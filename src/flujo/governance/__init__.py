"""Protection of secrets: masked in text, refused in values."""
