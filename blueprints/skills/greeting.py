"""Greets in a given language."""

_HELLO = {"en": "Hello", "de": "Hallo", "es": "Hola"}


def greet(name: str, language: str) -> str:
    """Return a greeting for `name`; an unknown language gets the English one."""
    return f"{_HELLO.get(language, _HELLO['en'])}, {name}!"
