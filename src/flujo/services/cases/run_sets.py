"""Sets of scored runs, as a user names them: by conditions, by a lock, or by a range of time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flujo.blueprint.lock import lockfile
from flujo.domain.evaluations import EvaluationQuery
from flujo.domain.wording import suggest
from flujo.exceptions import SettingsError
from flujo.services.given import seconds_of
from flujo.services.project.inputs import read_moment
from flujo.services.project.system import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

LOCK = "lock:"
"""The beginning of a word that means the recorded scores of a lock."""

_CONDITION = re.compile(r"(?P<key>[a-z]+)(?P<sign>[=<])(?P<value>\S+)")
_KEYS = ("blueprint", "evaluator", "lock", "score")
_DIGEST = re.compile(r"[0-9a-f]{6,64}")
_MOST = 10_000
"""How many scores are read at most; the newest ones."""


def is_conditions(text: str) -> bool:
    """Return whether a text is taken for conditions on scores, and not for a lock or a git revision."""
    return "=" in text or "<" in text


def query_of(conditions: str, *, option: str) -> EvaluationQuery:
    """Return the query of conditions: some of `blueprint=NAME evaluator=NAME lock=DIGEST score<NUMBER`.

    Args:
        conditions: the text.
        option: where it was written, for messages.

    Raises:
        SettingsError: a condition cannot be read.
    """
    given: dict[str, Any] = {}
    for word in conditions.split():
        match = _CONDITION.fullmatch(word)
        if match is None or match["key"] not in _KEYS or (match["key"] == "score") != (match["sign"] == "<"):
            key = re.split(r"[=<>]", word)[0]
            known = suggest(key, _KEYS) if key not in _KEYS else ""
            raise SettingsError(
                f"{option}: {word!r} is not a condition on scores",
                hint=known
                if known.startswith("did")
                else "write `blueprint=sort evaluator=polite score<0.5`",
            )
        given[match["key"]] = match["value"]
    score = given.pop("score", None)
    try:
        below = None if score is None else float(score)
    except ValueError:
        raise SettingsError(f"{option}: `score<{score}` is not a number", hint="write `score<0.5`") from None
    return EvaluationQuery(
        pipeline=given.get("blueprint"),
        evaluator=given.get("evaluator"),
        lock=given.get("lock"),
        below=below,
        limit=_MOST,
    )


def is_set(word: str) -> bool:
    """Return whether a word means a set of runs: a lock, or a range of time."""
    return ".." in word or word.startswith(LOCK) or word.endswith(".lock")


def set_of(
    word: str, cwd: Path, *, blueprint: str | None = None, evaluator: str | None = None
) -> EvaluationQuery:
    """Return the query of `FROM..TO`, `lock:DIGEST`, a lockfile, or the digest of a lock.

    Raises:
        LockUnreadable: the lockfile is broken.
        SettingsError: it is neither a lock nor a range of time.
    """
    facts: dict[str, Any] = {"pipeline": blueprint, "evaluator": evaluator, "limit": _MOST}
    if ".." in word:
        since, _, until = word.partition("..")
        return EvaluationQuery(since=_moment(since), until=_moment(until), **facts)
    return EvaluationQuery(lock=lock_of(word if is_set(word) else LOCK + word, cwd), **facts)


def _moment(text: str) -> float | None:
    """Return a time in seconds since the epoch; None for an empty text, an open end."""
    moment = read_moment(text, option="the range of time") if text else None
    return seconds_of(moment, "since", SystemClock())


def lock_of(word: str, cwd: Path) -> str | None:
    """Return the digest of a lock, or its beginning, that a word means: `lock:DIGEST` or a lockfile.

    Returns:
        None if the word means something else.

    Raises:
        LockUnreadable: the lockfile is broken.
        SettingsError: what follows `lock:` is not the beginning of a digest, or the file cannot be read.
    """
    if word.startswith(LOCK):
        digest = word.removeprefix(LOCK)
        if not _DIGEST.fullmatch(digest):
            raise SettingsError(
                f"{word!r} has no digest of a lock",
                hint="write at least 6 characters of it: `lock:3f9a1c`; `flujo trace RUN` shows it",
            )
        return digest
    if not word.endswith(".lock"):
        return None
    try:
        text = (cwd / word).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{word} cannot be read: {error}", hint="name a lockfile") from error
    return lockfile.digest(lockfile.read(text))
