"""Forms from JSON Schemas: what can be filled in, the text of each field, and the value that they make."""
