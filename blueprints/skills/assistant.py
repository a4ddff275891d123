"""The answers of `blueprints/assistant.yaml`."""


def reply(text: str) -> str:
    """Return what the assistant says to a visitor."""
    return f"Thank you, I wrote down: {text}"
