"""What publish.yaml calls: plain functions, sync or async, with typed parameters."""

from pathlib import Path

OUTBOX = Path("published.txt")


def draft(news: str) -> str:
    """Return an announcement."""
    return f"Dear customers, {news.strip()}"


def publish(text: str) -> str:
    """Publish a text. After a crash it may be called again: the same text is published once."""
    known = OUTBOX.read_text("utf-8").splitlines() if OUTBOX.exists() else []
    if text not in known:
        OUTBOX.write_text("\n".join([*known, text]) + "\n", "utf-8")
    return text
