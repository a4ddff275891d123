"""Judges the tone of a text by signs of shouting and blame."""

from typing import Any

_BLAME = ("your fault", "as we told you", "obviously", "you should have")


def judge(text: str) -> dict[str, Any]:
    """Return `{ok, wish}`; `wish` is "" when nothing sounds wrong."""
    loud = [word for word in text.split() if len(word) > 3 and word.isupper() and word.isalpha()]
    blame = next((sign for sign in _BLAME if sign in text.lower()), None)
    if loud:
        return {"ok": False, "wish": f"Do not shout {loud[0]}."}
    if text.count("!") > 1:
        return {"ok": False, "wish": "One exclamation mark is enough."}
    return {"ok": blame is None, "wish": f"Leave out {blame!r}." if blame else ""}
