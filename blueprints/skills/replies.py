"""Makes a question short, a help page an answer, and judges whether that answers the question."""

MAX_QUESTION = 200


def shortened(data: str) -> str:
    """Return the question on one line, shortened."""
    return " ".join(data.split())[:MAX_QUESTION]


def as_answer(data: dict[str, str]) -> str:
    """Return what a help page says, with what it is about."""
    return f"{data['title']}: {data['text']}"


def answers(data: str) -> str | None:
    """Return why an answer cannot be sent."""
    return "no help page fits the question" if data.startswith("Contact:") else None


def put_off(data: str) -> str:
    """Return what is sent when nothing is known."""
    return f"We have passed your question on: {data}"


def noted(reply: str, is_open: bool) -> dict[str, str | bool]:
    """Return a reply, and whether the question is still open."""
    return {"reply": reply, "open": is_open}
