"""Every example of the README and the docs runs. A page is one project, and its blocks run from top to bottom.

The first line of a block may have these words after the language:

    title="a/file"   the block is that file of the page's project; a blueprint must validate
    excerpt="a/file" the block is pieces of that file of the repository, in order, with `# …` between them
    invalid          the blueprint must not validate
    exit=5           the last command ends with this code (default 0)
    model, postgres  the block needs the local model, or a Postgres
    words            of the last line of a `model` block, only the form is compared: the words are the model's
    server           `http://localhost:8000` in the block is the server of a model, which answers a ticket
    serve            `http://127.0.0.1:8400` in the block is `flujo serve` in the page's project
    ray              `127.0.0.1:6379` in the block is a Ray cluster with two nodes, in `make soak`; elsewhere nothing runs
    dask             `tcp://127.0.0.1:8786` in the block is a Dask cluster with two workers
    graph="name"     the block is the output of `flujo graph name --format mermaid`
    outside          not run: it clones, installs, or calls make
    fragment         not run: a few lines that show one rule (generated pages only)

In a `console` block the lines after a `$ command` are its output: stdout alone, or stderr with stdout as on a
terminal. `…` stands for any number of lines; numbers and ids may differ. The text of a model
may differ between machines, so of a `model` block only the last line is compared.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import warm
from agents.provider_server import Provider, provider_server
from services.executors.dask_cluster import DaskCluster
from services.executors.ray_cluster import RayCluster
from support import plugin_variables

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
RUNS = ("bash", "console", "python", "toml", "yaml")
QUIETLY: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 240}
PROGRAMS = {"flujo": Path(sys.executable).with_name("flujo"), "python": Path(sys.executable)}
PLAIN = re.compile(r"""(?:flujo|python) (?:[\w@%+=:,./ -]|'[^'\n]*'|"[^"$`\\\n]*")+""", re.ASCII)
"""A command that needs no shell."""
OUTSIDE = ("git clone ", "cd ", "make", "pip install ", "export ", "dask ", "ray ", "vllm ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    words: dict[str, str]
    text: str

    @property
    def place(self) -> str:
        """Its page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    opened: tuple[int, str, dict[str, str]] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            inside.append(line)
        elif opened is None:
            language, *words = shlex.split(line[3:]) or [""]
            opened, inside = (number, language, dict(word.partition("=")[::2] for word in words)), []
        else:
            yield Block(page, opened[0], opened[1], opened[2], "\n".join(inside) + "\n")
            opened = None
    assert opened is None, f"{page} has a block that is never closed"


def runnable(page: Path) -> list[Block]:
    """Return the blocks of a page that are executed, or compared with a file."""
    chosen = [b for b in blocks(page) if b.language in RUNS or "excerpt" in b.words]
    return [b for b in chosen if not {"outside", "fragment"} & b.words.keys()]


def parameters() -> list[object]:
    """Return each page with executable blocks, marked when it needs the model."""
    found: list[object] = []
    for page in PAGES:
        run_here = runnable(page)
        marks = [pytest.mark.model] if any("model" in b.words for b in run_here) else []
        if run_here:
            found.append(pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks))
    return found


@pytest.fixture(scope="session")
def scaffold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project made by `flujo init`."""
    folder = tmp_path_factory.mktemp("scaffold")
    done = shell(folder, "flujo init --name demo .", environment())
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder in which a page's examples run: this repository's, an empty one, or a new project."""
    page: Path = request.getfixturevalue("page")
    folder = tmp_path / "project"
    text = page.read_text("utf-8")
    if page.parent == ROOT:
        shutil.copytree(ROOT / "blueprints", folder / "blueprints")
        shutil.copy(ROOT / "flujo.toml", folder)
    elif "$ flujo init" in text:
        folder.mkdir()
    else:
        shutil.copytree(request.getfixturevalue("scaffold"), folder)
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", parameters())
def test_the_examples_of_a_page_run(page: Path, project: Path, request: pytest.FixtureRequest) -> None:
    env = environment()
    if "$ flujo init" not in page.read_text("utf-8"):
        for block in runnable(page):  # a page may show a blueprint before the functions that it calls
            if block.language == "python" and block.words.get("title", "").startswith("skills/"):
                write(block, project)
    for block in runnable(page):
        if "postgres" in block.words:
            env["FLUJO_STATE_URI"] = request.getfixturevalue("empty_postgres_uri")
        if "ray" not in block.words or block.language != "console" or on_clusters():
            run(with_services(block, request), project, env)


def on_clusters() -> bool:
    """Return whether blocks with the word `ray` run: their cluster takes long to start."""
    return os.environ.get("FLUJO_CLUSTERS") == "all"


def with_services(block: Block, request: pytest.FixtureRequest) -> Block:
    """Return a block with the addresses of the services that its words name, which this test starts."""
    if "serve" in block.words:
        block = on_flujo_serve(block, request.getfixturevalue("api_server"))
    if "dask" in block.words:
        block = on_dask(block, request.getfixturevalue("dask_address"))
    if "ray" in block.words and on_clusters():
        block = on_ray(block, request.getfixturevalue("ray_address"))
    if "server" in block.words:
        block = on_server(block, request.getfixturevalue("model_server"))
    return block


def test_diagrams_match_the_output_of_flujo_graph() -> None:
    pictures = [block for page in PAGES for block in blocks(page) if block.language == "mermaid"]
    assert pictures
    for block in pictures:
        drawn = shell(ROOT, f"flujo graph {block.words['graph']} --format mermaid", environment())
        assert block.text == drawn.stdout, f"{block.place}: update the diagram"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_that_do_not_run_only_set_things_up(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for block in blocks(page):
        if "outside" not in block.words:
            continue
        for line in (line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")):
            assert line.startswith(OUTSIDE), f"{block.place}: `{line}` could run as a test"
            for target in re.findall(r"make ([a-z]+)", line):
                assert target in targets, f"{block.place}: there is no `make {target}`"


def test_only_generated_pages_hold_fragments() -> None:
    for page in PAGES:
        if any("fragment" in block.words for block in blocks(page)):
            assert "generated" in page.read_text("utf-8").splitlines()[0], f"{page} is written by hand"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.fixture
def model_server() -> Iterator[Provider]:
    """A server for models that sorts every ticket."""
    with provider_server() as server:
        server.will_answer('{"label": "bug"}')
        yield server


@pytest.fixture
def api_server(project: Path) -> Iterator[str]:
    """The address of `flujo serve` in the page's project, which the page has written by now."""
    words = [str(PROGRAMS["flujo"]), "serve", "--port", "0"]
    with subprocess.Popen(
        words, cwd=project, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert address is not None
        yield address[0]
        process.terminate()
        assert process.stderr.read() == ""


@pytest.fixture
def dask_address(tmp_path: Path) -> Iterator[str]:
    """The address of a Dask cluster with two workers."""
    pytest.importorskip("distributed", reason="needs `pip install 'flujo[dask]'`")
    folder = tmp_path / "dask"
    folder.mkdir()
    cluster = DaskCluster(folder)
    try:
        cluster.add_worker()
        cluster.add_worker()
        cluster.wait_for_workers(2)
        yield cluster.address
    finally:
        cluster.close()


@pytest.fixture
def ray_address() -> Iterator[str]:
    """The address of a Ray cluster with two nodes."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    cluster = RayCluster()
    try:
        yield cluster.address
    finally:
        cluster.close()


def on_ray(block: Block, address: str) -> Block:
    """Return a block whose Ray cluster is the one of this test."""
    return replace(block, text=block.text.replace("127.0.0.1:6379", address))


def on_dask(block: Block, address: str) -> Block:
    """Return a block whose Dask cluster is the one of this test."""
    return replace(block, text=block.text.replace("tcp://127.0.0.1:8786", address))


def on_flujo_serve(block: Block, address: str) -> Block:
    """Return a block whose `flujo serve` is the one of this test."""
    return replace(block, text=block.text.replace("http://127.0.0.1:8400", address))


def on_server(block: Block, server: Provider) -> Block:
    """Return a block whose server for models is the one of this test."""
    here = server.url.replace("127.0.0.1", "localhost")
    return replace(block, text=block.text.replace("http://localhost:8000", here))


def write(block: Block, project: Path) -> None:
    """Write a block into the file of its title."""
    file = project / block.words["title"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text, "utf-8")


def run(block: Block, project: Path, env: dict[str, str]) -> None:
    """Run one block in the page's project."""
    if name := block.words.get("excerpt"):
        rest = (ROOT / name).read_text("utf-8")
        for piece in block.text.split("# …\n"):
            assert piece in rest, f"{block.place}: {name} has changed"
            rest = rest.partition(piece)[2]
        return
    if "title" in block.words:
        write(block, project)
    if block.language == "console":
        console(block, project, env)
    elif block.language == "bash":
        check(block, shell(project, block.text, env), [])
    elif block.language == "python" and "title" not in block.words:
        check(block, warm.run([sys.executable, "-c", block.text], cwd=project, env=env, **QUIETLY), [])
    elif block.language == "yaml":
        assert "title" in block.words, f"{block.place}: name the file in its title"
        is_blueprint = not block.words["title"].startswith(("evals/", "schemas/"))  # others read these
        if "invalid" not in block.words and is_blueprint:
            check(block, shell(project, f"flujo validate {shlex.quote(block.words['title'])}", env), [])


def console(block: Block, project: Path, env: dict[str, str]) -> None:
    """Run the commands of a console block and compare what they print."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            assert commands, f"{block.place}: begins without a `$ command`"
            commands[-1][1].append(line)
    for number, (command, shown) in enumerate(commands, 1):
        done = shell(project, command, env)
        check(block, done, shown, last=number == len(commands))


def check(
    block: Block, done: subprocess.CompletedProcess[str], shown: list[str], *, last: bool = True
) -> None:
    """Fail when a command's exit code or output differs from the page."""
    wanted = int(block.words.get("exit", 0)) if last else 0
    report = f"{block.place}: {done.args}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    assert done.returncode == wanted, f"exit code {done.returncode}, not {wanted}\n{report}"
    out, err = done.stdout.splitlines(), done.stderr.splitlines()
    # On a terminal the result is one block somewhere in the output.
    prints = [out, *([*err[:place], *out, *err[place:]] for place in range(len(err) + 1))]
    if shown and "words" in block.words:
        assert any(form(line) == form(shown[-1]) for line in [*out, *err]), f"prints something else\n{report}"
        return
    if shown and "model" in block.words:
        shown = ["…", shown[-1], "…"]
    assert not shown or any(fits(shown, lines) for lines in prints), f"prints something else\n{report}"


def form(line: str) -> Any:
    """Return what a line of a model's run is, whatever the model wrote: the keys of its JSON, or its first word."""
    try:
        found = json.loads(line)
    except ValueError:
        return line.split()[:1]
    return sorted(found) if isinstance(found, dict) else type(found)


def fits(shown: list[str], printed: list[str]) -> bool:
    """Return whether `printed` matches the page; `…` stands for any number of lines."""
    pattern = "".join(
        r"(?:[^\n]*\n)*" if line.strip() == "…" else re.escape(loose(line)) + r"\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{loose(line)}\n" for line in printed)) is not None


def loose(line: str) -> str:
    """Return a line without its variable parts: ids, numbers, widths."""
    line = re.sub(r"\b[0-9a-f]{12,32}\b", "ID", line)
    line = re.sub(r"\b(?=[a-z]*\d)(?=\d*[a-z])[0-9a-z]{8,}\b", "ID", line)
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    line = line.replace("  0s of work", "")  # where steps took much longer or shorter than their attempts
    line = re.sub(r"\b0 [KM]iB\b", "0 B", line)
    return re.sub(r"[ ─━═]+", " ", line).strip()


def environment() -> dict[str, str]:
    """Return an environment with the `flujo` under test and no Flujo variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUJO_")}
    path = os.pathsep.join([str(warm.on_path()), str(Path(sys.executable).parent), kept.get("PATH", "")])
    return (
        kept
        | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "110", "PYTHONDONTWRITEBYTECODE": "1"}
        | plugin_variables()
    )


def shell(folder: Path, command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command line as a reader types it, without a terminal, and return its output."""
    if PLAIN.fullmatch(command):
        program, *words = shlex.split(command)
        return warm.run([PROGRAMS[program], *words], cwd=folder, env=env, **QUIETLY)
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, check=False, text=True, **QUIETLY)
