"""Looks at every blueprint of the corpora with every command that only looks, under a hook that refuses to act.

Run as `python watched_program.py FOLDER STRIDE`: each case gets a project below FOLDER; of the cases that have no
number, one in STRIDE is taken. With a STRIDE of 1 each command looks at each case, otherwise the commands take turns.
Prints the number of cases, and the most memory that was used, in MiB.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from bad.composite_cases import COMPOSITE_CASES
from bad.corpus import CASES
from bad.flow_cases import FLOW_CASES, TOOLS, TYPED
from bad.listed import LISTED
from bad.listing import CHECK, CONFIG
from bad.meaning_cases import CASES as MEANING
from bad.meaning_cases import ENTRY, SKILLS
from bad.sharing_cases import SHARING_CASES
from flujo.cli.app import app
from good.corpus import CASES as GOOD_FILES
from good.flow_cases import GOOD_FLOW
from good.meaning_cases import GOOD

if TYPE_CHECKING:
    from collections.abc import Iterator

FLUJO = get_command(app)
LOOKS = ((CHECK,), (("graph", ENTRY),), (("explain", ENTRY),), (("lock",),))
AT_GOOD_ONES = (*LOOKS[:-1], (("ls", "--json"),), (("lock",), ("lock", "verify"), ("lock", "diff")))
"""Commands that follow each other."""
WITNESS = "from pathlib import Path\nPath(__file__).with_name('marker').touch()\n"
KNOWN = {"flujo", "google", *sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
"""Whose modules may be loaded; CEL's binding asks for `google.protobuf` where that is installed."""
OURS = (
    str(Path(sys.base_prefix)),
    str(Path(sys.prefix)),
    str(Path(sys.modules["flujo"].__file__ or "").parent),
)
ACTS = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "pty.",
    "ctypes.",
)
CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ANNOTATIONS = {"get_annotations", "get_type_hints"}
ADDRESS_SPACE = 2 << 30
SECONDS = 20
"""When a case takes this much time of the processor it hangs; a busy machine does not count."""


class Refused(BaseException):
    """Something was done that looking must not do. No handler of errors may keep it."""


refused: list[str] = []
"""Refused events, also those whose exception was swallowed by code in C."""
watching: list[str] = []
"""The case that is looked at, its folder, and the command, while one is."""


def hook(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what goes beyond reading the project and writing the lockfile."""
    if watching and _acts(event, args):
        refused.append(f"{watching[0]}: {event} {str(args)[:300]}")
        raise Refused(event)


def _acts(event: str, args: tuple[Any, ...]) -> bool:
    if event == "import":  # a module of Flujo may import an optional one that is not installed
        return str(args[0]).partition(".")[0] not in KNOWN and not _is_importing()
    if event == "open":
        path, mode, flags = args
        writes = any(letter in str(mode or "") for letter in "wax+") or bool((flags or 0) & WRITING)
        return writes and not _is_lock(path)
    if event == "exec":
        return _is_foreign(args[0].co_filename)
    if (
        event == "compile"
    ):  # `ast.parse`, which only reads, is given no path or one that leads nowhere by itself
        return _is_foreign(str(args[1])) and Path(str(args[1])).is_absolute()
    if event.startswith(CHANGES):
        return not _is_lock(args[0])
    return event.startswith(ACTS)


def _is_lock(path: object) -> bool:
    """Return whether a path is the lockfile, or what becomes it (`tempfile` first names the folder)."""
    named = Path(str(path))
    return watching[2:] == ["lock"] and (
        str(named) == watching[1] or named.name.lstrip(".").startswith("flujo.lock")
    )


def _is_foreign(name: str) -> bool:
    """Return whether code of this name is none of Flujo, its libraries and Python."""
    return not name.startswith((*OURS, "<frozen")) and not (name.startswith("<") and _is_importing())


def _is_importing() -> bool:
    """Return whether a module of Flujo is being loaded, which may make classes out of text, or its annotations are.

    Both need a module that was imported, and no other is.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>" or frame.f_code.co_name in ANNOTATIONS:
            return True
        frame = frame.f_back
    return False


def projects(stride: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the files of each case: the numbered, the good ones, and one in `stride` of the other bad ones."""
    yield from ((case.id, {**case.files}) for case in LISTED if case.command == CHECK and case.make is None)
    good = {**GOOD_FILES, **GOOD, **GOOD_FLOW}
    tools = {"skills/typed.py": TYPED.encode(), "skills/tools.py": TOOLS.encode()}
    for name, data in good.items():
        yield name, {**tools, ENTRY: data if isinstance(data, bytes) else data.encode()}
    for one in CASES[::stride]:
        yield one.name, {ENTRY: one.data}
    for case in [*MEANING, *COMPOSITE_CASES, *FLOW_CASES, *SHARING_CASES][::stride]:
        yield case.name, {path: text.encode() for path, text in case.all_files().items()}


def looks(name: str, files: dict[str, bytes], turn: int | None) -> Iterator[tuple[str, ...]]:
    """Yield the commands that look at a case: those whose turn it is, or all.

    Locking starts the MCP servers that a blueprint names, so a case with one is not locked.
    """
    starts = any(b"mcp:" in data for data in files.values())
    known = AT_GOOD_ONES if name in GOOD else LOOKS
    all_of_them = [commands for commands in known if not (starts and ("lock",) in commands)]
    for commands in all_of_them if turn is None else [all_of_them[turn % len(all_of_them)]]:
        yield from commands


def look(root: Path, name: str, files: dict[str, bytes], turn: int | None) -> None:
    """Write a case's project, and look at it."""
    for path, data in {"flujo.toml": CONFIG.encode(), "skills/crm.py": SKILLS.encode(), **files}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data + WITNESS.encode() if path.endswith(".py") else data)
    for command in looks(name, files, turn):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        watching[:] = [name, str(root.resolve()), *command]
        with contextlib.suppress(SystemExit), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            FLUJO.main(["-C", str(root), *command], prog_name="flujo")
        watching.clear()
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    folder, stride = Path(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.addaudithook(hook)
    count = 0
    for count, (name, files) in enumerate(projects(stride), 1):
        look(folder / str(count), name, files, None if stride == 1 else count)
    imported = [
        name for name in sys.modules if name.partition(".")[0] not in {*KNOWN, "bad", "good", "__main__"}
    ]
    assert not [name for name in imported if name.startswith("skills")], imported
    assert not refused, refused
    assert not list(folder.rglob("marker"))
    status = Path("/proc/self/status")  # getrusage would count what the parent had when it forked
    peak = (
        [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if status.exists()
        else [0]
    )
    sys.stdout.write(f"{count} {int(peak[0]) // 1024}\n")


if __name__ == "__main__":
    main()
