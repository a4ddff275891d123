"""The pytest plugin of Flujo: plays cassettes as tests. It imports no more of Flujo before one is played."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.models import AppResources
    from flujo.testing.cassettes import Played

_MARK = b"flujo_cassette:"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, and the folders of cassettes."""
    group = parser.getgroup("flujo", "cassettes of Flujo")
    group.addoption(
        "--flujo-refresh",
        action="append",
        default=[],
        metavar="PATH",
        help="Record the cassettes at PATH (a file or a folder) again, with the real models. Repeatable.",
    )
    group.addoption(
        "--flujo-strict",
        action="store_true",
        help="Refuse connections and processes while cassettes are played.",
    )
    parser.addini("flujo_cassettes", "Folders whose cassettes are tests.", type="paths", default=[])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the cassettes of the folders, and those that are named on the command line."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    folders = [Path(each) for each in parent.config.getini("flujo_cassettes")]
    is_named = parent.session.isinitpath(file_path)
    if not (is_named or any(folder in file_path.parents for folder in folders)):
        return None
    with file_path.open("rb") as file:
        if not any(line.startswith(_MARK) for line in file):
            return None  # other data in the folder
    collected: pytest.Collector = CassetteFile.from_parent(parent, path=file_path)
    return collected


class CassetteFile(pytest.File):
    """A file with one cassette."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the test."""
        yield CassetteItem.from_parent(self, name="cassette")


class CassetteItem(pytest.Item):
    """Plays a cassette; passes when all requests match, and the output is the expected one."""

    def runtest(self) -> None:
        """Play it, or record it again first."""
        Cassettes(self.config).play(self.path).require_expected()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what differs, without the frames of Flujo."""
        from flujo.exceptions import FlujoError
        from flujo.testing.cassettes import CassetteFailed

        error = excinfo.value
        if isinstance(error, FlujoError):
            hint = f"\nhint: {error.hint}" if error.hint else ""
            return f"{error.message} [{error.code}]{hint}"
        if isinstance(error, CassetteFailed):
            return str(error)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the test is."""
        return self.path, None, f"cassette {self.path.name}"


class Cassettes:
    """Plays cassettes with the options of this session; the fixture `cassette`."""

    def __init__(self, config: pytest.Config) -> None:
        self._strict = bool(config.getoption("--flujo-strict"))
        folder = config.invocation_params.dir
        self._refreshed = [(folder / each).resolve() for each in config.getoption("--flujo-refresh") or ()]

    def play(self, path: Path | str, *, resources: AppResources | None = None) -> Played:
        """Play a cassette from a test that is not a coroutine.

        Args:
            path: the file.
            resources: for the callables that run.

        Returns:
            The result; `require_expected()` checks what the cassette expects, `output` is the run's output.
        """
        import asyncio

        return asyncio.run(self.play_async(path, resources=resources))

    async def play_async(self, path: Path | str, *, resources: AppResources | None = None) -> Played:
        """Play a cassette from a coroutine; see `play`."""
        from flujo.testing.cassettes import play_async, record_async, refusing_outside_calls

        file = Path(path)
        if self._is_refreshed(file):
            await record_async(file, resources=resources)
        with refusing_outside_calls() if self._strict else nullcontext():
            return await play_async(file, resources=resources)

    def _is_refreshed(self, file: Path) -> bool:
        whole = file.resolve()
        return any(each == whole or each in whole.parents for each in self._refreshed)


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Cassettes:
    """Play a cassette: `cassette.play("tests/cassettes/x.yaml").require_expected()`."""
    return Cassettes(request.config)
