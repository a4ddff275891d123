"""What hello.yaml calls: plain functions, sync or async, with typed parameters."""


def greet(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name.strip()}!"


def count_letters(text: str) -> int:
    """Return how many letters a text has."""
    return sum(char.isalpha() for char in text)
