"""The numbered cases around a blueprint: secrets, settings, the lock, the database and the input (H)."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from bad.listing import CONFIG, Listed, entry, found, known
from bad.meaning_cases import HEAD, SECRETS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

GOOD = (
    HEAD.partition("agents:")[0]
    + "steps:\n  - {name: ask, kind: hitl, message: 'ok?', answer_schema: {type: number}}\n"
)
FREE = 'version: "1"\nname: case\nsteps:\n  - {name: keep, call: skills.crm:plain}\n'
RUNNING = "def plain(data): return data\ndef echo(text): return text\n"


def secret(number: int, name: str, value: str) -> Listed:
    return found(number, name, known(value), "FLJ230", 11, 17, "looks like", hidden=SECRETS[value])


LITERALS = [
    secret(132, "literal-openai-key", "openai-key"),
    secret(133, "literal-aws", "aws-key"),
    secret(134, "dsn-with-password", "address-with-password"),
    secret(135, "private-key-block", "private-key"),
]


def config(number: int, name: str, toml: str, *words: str) -> Listed:
    return Listed(
        number,
        name,
        {"flujo.toml": toml.encode()},
        "FLJ600",
        None,
        words,
        command=("tasks", "list"),
        exit_code=2,
    )


SETTINGS = [
    config(136, "toml-unknown-key", CONFIG + "allow_callable = []\n", "allow_callable"),
    config(137, "toml-state-uri-bad-scheme", 'state_uri = "redis://host/0"\n', "redis"),
    config(
        138,
        "toml-pool-min-gt-max",
        "[settings]\npostgres_pool_min = 9\npostgres_pool_max = 2\n",
        "postgres_pool_min",
    ),
]


def edited(change: Callable[[str], str], name: str = "flujo.lock") -> Callable[[Path], None]:
    def make(root: Path) -> None:
        path = root / name
        now = path.read_text("utf-8")
        then = change(now)
        assert then != now
        path.write_text(then, "utf-8")

    return make


AGENT = {"blueprints/case.yaml": HEAD.encode()}


def lock(number: int, name: str, code: str, make: Callable[[Path], None], *words: str, exit_code: int = 7, strict: bool = False,
         files: Mapping[str, bytes] = AGENT) -> Listed:  # fmt: skip
    command = ("lock", "verify", "--strict") if strict else ("lock", "verify")
    return Listed(
        number,
        name,
        files,
        code,
        None,
        words,
        command=command,
        exit_code=exit_code,
        before=(("lock",),),
        make=make,
    )


def added(root: Path) -> None:
    (root / "blueprints/more.yaml").write_text(FREE)


def removed(root: Path) -> None:
    (root / "blueprints/more.yaml").unlink()


LOCKS = [
    lock(103, "tool-description-changed", "", edited(lambda text: text.replace("looks", "sends"), "skills/crm.py"), "skills.crm:look", strict=True,
         files={"blueprints/case.yaml": HEAD.replace("agents:\n", "agents:\n  a: {model: b:c, tools: ['skills.crm:look']}\n").encode() + b"  - {name: more, agent: a}\n",
                "skills/crm.py": b'def look(email):\n    """It looks."""\n'}),
    lock(139, "lock-tampered", "", edited(lambda text: text.replace("a:b", "c:d")), "sorter"),
    lock(140, "lock-missing-entry", "", added, "more", strict=True),
    lock(141, "lock-extra-entry", "", removed, "more", strict=True, files={**AGENT, "blueprints/more.yaml": FREE.encode()}),
    lock(142, "lock-future-version", "FLJ651", edited(lambda text: text.replace("version", "version = 99\n_", 1)), "99", exit_code=2),
    lock(143, "lock-duplicate-key", "FLJ651", edited(lambda text: text.replace("version = 2", "version = 2\nversion = 2", 1)), "not TOML", exit_code=2),
    lock(144, "lock-truncated", "FLJ651", edited(lambda text: text[: len(text) // 2]), "flujo lock", exit_code=2),
]  # fmt: skip

RUN = ("run", "blueprints/case.yaml", "--input", "a")
ASK = ("run", "blueprints/case.yaml", "--input", "a", "--paused-ok")
DATABASE = ".flujo/state.db"


def state(number: int, name: str, code: str, make: Callable[[Path], None], *words: str, command: tuple[str, ...] = ("tasks", "show", "@last"),
          entry_text: str = FREE, before: tuple[str, ...] = RUN) -> Listed:  # fmt: skip
    files = {**entry(entry_text), "skills/crm.py": RUNNING.encode()}
    return Listed(
        number, name, files, code, None, words, command=command, exit_code=8, before=(before,), make=make
    )


def sql(*statements: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        with sqlite3.connect(root / DATABASE) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount
        connection.close()

    return make


def cut(root: Path) -> None:
    path = root / DATABASE
    for beside in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (root / beside).unlink(missing_ok=True)
    path.write_bytes(path.read_bytes()[:9_000])


def no_database(root: Path) -> None:
    for beside in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (root / beside).unlink(missing_ok=True)
    (root / DATABASE).write_bytes(b"These are notes and no database. " * 200)


DATABASES = [
    state(145, "state-newer-schema", "FLJ504", sql("UPDATE schema_info SET revision = '9999', oldest_reader = '9999'"), "upgrade Flujo"),
    state(146, "state-not-sqlite", "FLJ500", no_database, "is not a SQLite database"),
    state(147, "state-bitflip", "FLJ505", sql("UPDATE journal SET output = x'00' WHERE output IS NOT NULL"), "its digest differs"),
    state(148, "state-truncated", "FLJ505", cut, "is damaged"),
    state(154, "trace-edited", "FLJ505", sql("UPDATE journal SET output = CAST('\"b\"' AS BLOB) WHERE output IS NOT NULL"), "its digest differs", command=("trace", "@last")),
]  # fmt: skip


def answer(number: int, name: str, value: str, *words: str) -> Listed:
    return Listed(number, name, entry(GOOD), "FLJ601", None, words, command=("tasks", "resume", "@last", "--input", value),
                  exit_code=2, before=(ASK,))  # fmt: skip


def filtered(number: int, name: str, pair: str, *words: str) -> Listed:
    return Listed(number, name, {**entry(FREE), "skills/crm.py": RUNNING.encode()}, "FLJ600", None, words,
                  command=("tasks", "list", "--metadata", pair), exit_code=2, before=(RUN,))  # fmt: skip


def large_input(root: Path) -> None:
    (root / "big.json").write_bytes(b'"' + b"x" * 64 * 1024 * 1024 + b'"')


HANDED = [
    answer(149, "resume-input-wrong-type", '"yes"', "number"),
    answer(150, "resume-input-nan", "NaN", "number"),
    filtered(151, "metadata-filter-injection", "a') = 1 OR 1=1 --=1", "a')"),
    filtered(152, "metadata-filter-nested", "a.b[0]=1", "a.b[0]"),
    Listed(153, "context-10mb", entry(FREE), "FLJ600", None, ("64 MiB",),
           command=("run", "blueprints/case.yaml", "--input-file", "big.json"), exit_code=2, make=large_input),
]  # fmt: skip
AROUND = [*LITERALS, *SETTINGS, *LOCKS, *DATABASES, *HANDED]
