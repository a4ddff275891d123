"""Loads a blueprint with its imports and prompt files, each read once and within limits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from flujo.blueprint.analysis.unit import Unit
from flujo.blueprint.diagnostics import Span, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.error_recovery import PartialDocument, recover
from flujo.blueprint.language.traversal import Path, asked, walk_blueprint
from flujo.blueprint.language.validation import L, schema_places, validate
from flujo.blueprint.reading.decoding import decode
from flujo.blueprint.reading.reader import read
from flujo.blueprint.reading.syntax_rules import REF_MISSING
from flujo.blueprint.schemas.checks import resolve
from flujo.blueprint.schemas.files import with_files
from flujo.blueprint.sources import agent_includes, secret_detection
from flujo.blueprint.sources.agent_includes import AgentRegistry
from flujo.blueprint.sources.package_admission import (
    PACKAGE_NOT_ALLOWED,
    PackageNotAllowed,
    require_allowed,
)
from flujo.blueprint.sources.secret_detection import SECRET_LITERAL, secret_found, secret_literal
from flujo.blueprint.sources.secret_masking import mask, masked
from flujo.blueprint.sources.signatures import read_module
from flujo.blueprint.sources.source_files import TEXT_BYTES, ListedSource, SourceRefused, named_path
from flujo.blueprint.sources.type_stubs import read_types
from flujo.domain.wording import size
from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flujo.blueprint.diagnostics import Diagnostic, Rule
    from flujo.blueprint.reading.source_map import Document
    from flujo.blueprint.schemas.files import Part
    from flujo.blueprint.sources.source_files import Source

MAX_DEPTH = 16
MAX_FILES = 200
MAX_BYTES = 4 * 1024 * 1024
MAX_STEPS = 20_000
"""The maximum number of steps with all imports expanded: each may import another many times."""

_IMPORT = "steps:\n  - {kind: import, name: answer, blueprint: "
PATH_REFUSED = rule(
    "FLJ220",
    "path-refused",
    "A path that blueprints may not read",
    finds="A path that is absolute, leaves the project (by `..` or a symbolic link), is a URL or is "
    "ambiguous, or that does not lead to a readable file.",
    why="A blueprint may only read files of its project.",
    example=f"{_IMPORT}../../etc/answer.yaml}}",
    instead=f"{_IMPORT}./answer.yaml}}",
)
FILE_MISSING = rule(
    "FLJ221",
    "file-missing",
    "A file that does not exist",
    finds="An imported blueprint, an included file of agents, a prompt or a schema that does not exist. "
    "Paths are relative to the file that names them.",
    why="The blueprint is incomplete.",
    example=f"{_IMPORT}./anwser.yaml}}",
    instead=f"{_IMPORT}./answer.yaml}}",
)
IMPORT_CYCLE = rule(
    "FLJ222",
    "import-cycle",
    "Blueprints that import each other in a cycle",
    finds="A blueprint that imports itself, directly or through others.",
    why="The pipeline would be infinite. To repeat steps, use a loop.",
    example=f"# answer.yaml\n{_IMPORT}./answer.yaml}}",
    instead="steps:\n  - {kind: loop, name: again, until: steps.answer.output.ok,\n"
    "     steps: [{name: answer, agent: a}]}",
)
IMPORT_LIMITS = rule(
    "FLJ223",
    "import-limits",
    "Too many imports",
    finds=f"Imports or includes more than {MAX_DEPTH} deep, more than {MAX_FILES} files or "
    f"{size(MAX_BYTES)}, or more than {MAX_STEPS} steps in all.",
    why="Every run pins all its files, and a few lines that import each other can expand to a million steps.",
    example="# seventeen blueprints, each importing the next",
    instead="# one blueprint that imports the others beside each other",
)

_TOO_DEEP = f"imports are more than {MAX_DEPTH} deep"
_TOO_MANY = f"this blueprint and its imports have over {MAX_STEPS} steps"


class Loader:
    """Loads a closure. A file's findings are reported once, however often it is imported."""

    def __init__(self, source: Source, allow: Sequence[str] | None) -> None:
        self.files: dict[str, bytes] = {}
        self.units: dict[str, Unit] = {}
        """Every valid blueprint by its project path, imported ones first."""
        self.rosters: dict[str, AgentRegistry] = {}
        """The agents that each valid file of agents provides to including files."""
        self.diagnostics: list[Diagnostic] = []
        self._documents: dict[str, Document] = {}
        self._texts: dict[str, str] = {}
        self._source = source
        self._allow = None if allow is None else tuple(allow)
        self._module = cache(lambda name: read_module(name, source))
        self._modules = cache(source.modules if isinstance(source, ListedSource) else lambda _package: ())
        self._types = cache(lambda name: read_types(name, source))
        self._loaded: set[str] = set()
        self._depth: dict[str, int] = {}
        self._steps: dict[str, int] = {}

    def load_entry(self, entry: str) -> Unit | None:
        """Return the blueprint at a project path with all its imports, or None if it is invalid."""
        start = Span(entry, 1, 1, 1, 1)
        try:
            self._read(entry)
        except SourceRefused as refused:
            self._refuse(start, entry, refused)
            return None
        return self._load(entry, (entry,)) if self._is_kind(start, entry, entry, agents=False) else None

    def load_agents(self, entry: str) -> Unit:
        """Return a file of agents as a blueprint without steps, so that rules can check it."""
        self._read(entry)
        self._read_agents(entry, (entry,))
        roster = self.rosters.get(entry, AgentRegistry())
        agents = {name: declared.agent for name, declared in roster.agents.items()}
        blueprint = doc.Blueprint.model_construct(version="1", name="agents", agents=agents, steps=[])
        unit = Unit(
            self.document(entry),
            blueprint,
            allow=self._allow,
            module=self._module,
            modules=self._modules,
            types=self._types,
            roster=roster,
        )
        unit.prompts = dict(self._prompts(unit))
        return unit

    @property
    def documents(self) -> tuple[Document, ...]:
        """Every blueprint and file of agents that was read, valid or not."""
        return tuple(self._documents.values())

    def sources(self) -> dict[str, str]:
        """Return the text of each file, with likely secrets masked."""
        return {
            path: mask(text, [span for span in self._secrets if span.file == path])
            for path, text in self._texts.items()
        }

    def without_secrets(self, found: Iterable[Diagnostic]) -> list[Diagnostic]:
        """Return the findings, with likely secrets of these files masked."""
        return masked(found, self._texts, self._secrets)

    @property
    def _secrets(self) -> list[Span]:
        return [one.span for one in self.diagnostics if one.code == SECRET_LITERAL.code]

    def _read(self, path: str) -> bytes:
        if path not in self.files:
            require_allowed(path, self._allow)
            data = self._source.read(path)
            if len(self.files) >= MAX_FILES or sum(map(len, self.files.values())) + len(data) > MAX_BYTES:
                raise _OverLimit
            self.files[path] = data
        return self.files[path]

    def document(self, path: str) -> Document:
        """Return a file as a document; findings about its YAML are reported once."""
        if path not in self._documents:
            document = read(self.files[path], path)
            self._documents[path] = document
            self._texts[path] = document.text
            self.diagnostics += document.diagnostics
            self.diagnostics += secret_literal(document)
        return self._documents[path]

    def _load(self, path: str, chain: tuple[str, ...]) -> Unit | None:
        self._loaded.add(path)
        document = self._with_schemas(path)
        kept = self._kept(doc.Blueprint, document)
        if kept is None:
            return None
        roster = self._included(kept, (path,))
        blueprint = agent_includes.whole(kept.document, kept.said, roster)
        unit = Unit(
            kept.document,
            blueprint,
            allow=self._allow,
            module=self._module,
            modules=self._modules,
            types=self._types,
            roster=roster,
            kept=kept,
        )
        unit.prompts = dict(self._prompts(unit))
        self._load_children(unit, chain)
        self.units[path] = unit
        return unit

    def _kept(self, language: type[L], document: Document) -> PartialDocument[L] | None:
        """Return the valid parts of a document, and report the others."""
        judged = validate(language, document)
        kept = recover(language, document, judged)
        self.diagnostics += judged.found
        self.diagnostics += kept.found if kept is not None else ()
        return kept

    def _with_schemas(self, path: str) -> Document:
        """Return a file whose schemas contain the files that they refer to."""
        document = self.document(path)
        return with_files(document, schema_places(document.data), self._schema_file)

    def _schema_file(self, document: Document, place: Path, reference: str) -> Part | None:
        """Return the file of a JSON Schema and the place in it that a `$ref` names."""
        text, _, fragment = reference.partition("#")
        path = self._named(document, place, text)
        file = None if path is None else self.document(path)
        if file is None or not isinstance(file.data, dict):
            return None  # reading the file has reported why
        inside = resolve(file.data, unquote(fragment))
        if inside is None:
            message = f"`$ref: {visible_line(reference)}` leads to nothing in {file.file}"
            known = [f"#/$defs/{name}" for name in file.data.get("$defs", ())]
            hint = suggest(f"#{fragment}", known, what="its definitions")
            self.diagnostics.append(REF_MISSING.at(document.span(place), message, hint=hint))
            return None
        return file, inside

    # Files that a blueprint names ------------------------------------------------------------------------

    def _prompts(self, unit: Unit) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the prompt files of a file's own agents, and of the included ones in use."""
        for name, agent in self._agents_that_matter(unit):
            if agent.instructions_file is None:
                continue
            document, where = unit.place(("agents", name, "instructions_file"))
            path = self._named(document, where, agent.instructions_file)
            text = self._text(document.span(where), path) if path is not None else None
            if path is not None and text is not None:
                yield name, (path, text)

    @staticmethod
    def _agents_that_matter(unit: Unit) -> Iterator[tuple[str, doc.Agent]]:
        """Yield a file's own agents, and the included ones in use."""
        asked_ones = (name for _, step in walk_blueprint(unit.blueprint) for _, name in asked(step))
        in_use = doc.with_helpers(asked_ones, unit.blueprint.agents)
        for name, agent in unit.blueprint.agents.items():
            if name in in_use or unit.is_own(name):
                yield name, agent

    def _text(self, span: Span, path: str) -> str | None:
        """Return a prompt file's text; findings about it are reported once, at their place in that file."""
        # line ends depend on the checkout, but the prompt must be the same
        prompt = decode(self.files[path].replace(b"\r\n", b"\n"), path, limit=TEXT_BYTES)
        if path not in self._texts:
            self._texts[path] = prompt.text
            named = ((span, "named here"),)
            self.diagnostics += (replace(one, related=named) for one in prompt.diagnostics)
            for start, end in secret_detection.find(prompt.text):
                self.diagnostics.append(secret_found(prompt.between(start, end), "the file"))
        return None if prompt.diagnostics else prompt.text

    def _load_children(self, unit: Unit, chain: tuple[str, ...]) -> None:
        """Load the blueprints that a file's steps import and that its agents have as tools."""
        imports: dict[str, Unit] = {}
        tools: dict[tuple[str, int], Unit] = {}
        depth, steps = 0, 0

        def load(place: Path, text: str) -> Unit | None:
            nonlocal depth, steps
            document, there = unit.place(place)
            child = self._import(document, there, text, chain)
            if child is not None:
                below = self._depth[child.document.file]
                depth = max(depth, below)
                before, steps = steps, steps + self._steps[child.document.file]
                span = document.span(there)
                self._limit(len(chain) + below > MAX_DEPTH, span, _TOO_DEEP)
                self._limit(before <= MAX_STEPS < steps, span, _TOO_MANY)
            return child

        for where, step in walk_blueprint(unit.blueprint):
            steps += 1
            if step.imports is not None and (child := load((*where, "blueprint"), step.imports)) is not None:
                imports[step.imports] = child
        for name, agent in self._agents_that_matter(unit):
            for index, tool in doc.composed_tools(agent):
                place = ("agents", name, "tools", index, "blueprint")
                if tool.blueprint is not None and (child := load(place, tool.blueprint)) is not None:
                    tools[name, index] = child
        self._depth[unit.document.file] = depth + 1
        self._steps[unit.document.file] = min(steps, MAX_STEPS + 1)
        unit.imports, unit.tool_blueprints = imports, tools

    def _import(self, document: Document, place: Path, text: str, chain: tuple[str, ...]) -> Unit | None:
        span = document.span(place)
        path = self._named(document, place, text)
        if path is None or not self._is_kind(span, text, path, agents=False):
            return None
        if path in chain:
            circle = " → ".join((*chain[chain.index(path) :], path))
            self.diagnostics.append(
                IMPORT_CYCLE.at(
                    span,
                    f"blueprints import each other in a cycle: {circle}",
                    hint="remove one of these imports; to repeat steps, use `kind: loop`",
                )
            )
            return None
        if path in self._loaded:
            return self.units.get(path)
        if len(chain) >= MAX_DEPTH:
            self._limit(True, span, _TOO_DEEP)
            return None
        return self._load(path, (*chain, path))

    # Files of agents -------------------------------------------------------------------------------------

    def _included(
        self, kept: PartialDocument[doc.Blueprint] | PartialDocument[doc.AgentsFile], chain: tuple[str, ...]
    ) -> AgentRegistry:
        """Return the agents that a file can use, its own ones with inherited keys."""
        roster = AgentRegistry(is_whole=kept.names_all_agents)
        pairs: list[tuple[agent_includes.Declared, agent_includes.Declared]] = []
        for index, text in enumerate(kept.said.include):
            path = self._include(kept.document, ("include", index), text, chain)
            other = self.rosters.get(path or "")
            roster.is_whole &= other is not None and other.is_whole
            if path is not None:
                below = other.files.values() if other is not None else ()
                roster.files[index] = {path}.union(*below)
            if other is not None:
                pairs += roster.add(other)
        self.diagnostics += agent_includes.duplicates(pairs)
        self.diagnostics += agent_includes.declare(kept.document, kept.said.agents, roster, kept.gaps)
        return roster

    def _include(self, document: Document, place: Path, text: str, chain: tuple[str, ...]) -> str | None:
        """Load a file of agents and its roster, and return its project path."""
        path = self._named(document, place, text)
        span = document.span(place)
        if path is None or not self._is_kind(span, text, path, agents=True):
            return None
        if path in chain:
            circle = " → ".join((*chain[chain.index(path) :], path))
            message = f"files of agents include each other in a cycle: {circle}"
            hint = "move the shared agents to a third file, and include that in both"
            self.diagnostics.append(agent_includes.INCLUDE_CYCLE.at(span, message, hint=hint))
            return None
        if len(chain) > MAX_DEPTH:
            self._limit(True, span, f"files of agents include each other more than {MAX_DEPTH} deep")
            return None
        self._read_agents(path, (*chain, path))
        return path

    def _read_agents(self, path: str, chain: tuple[str, ...]) -> None:
        """Compute the roster of a file of agents, if it is valid."""
        if path not in self._loaded:
            self._loaded.add(path)
            document = self._with_schemas(path)
            kept = self._kept(doc.AgentsFile, document)
            if kept is not None:
                self.rosters[path] = self._included(kept, chain)

    def _is_kind(self, span: Span, text: str, path: str, *, agents: bool) -> bool:
        """Return whether the file at `path` is of the required kind, and report it if not."""
        document = self.document(path)
        if agent_includes.is_agents_file(document.data) == agents or not isinstance(document.data, dict):
            return True
        if agents and "steps" not in document.data:
            return True  # neither: validation as a file of agents reports the error
        is_, wanted, hint = (
            ("a blueprint", "a file of agents", "to run it as a step: `kind: import`")
            if agents
            else ("a file of agents", "a blueprint", "blueprints `include` it")
        )
        self.diagnostics.append(
            agent_includes.WRONG_FILE.at(span, f"{text!r} is {is_}, but this key needs {wanted}", hint=hint)
        )
        return False

    # Reading ---------------------------------------------------------------------------------------------

    def _named(self, document: Document, place: Path, text: str) -> str | None:
        """Read the file that is named at `place`, and return its project path."""
        try:
            path = named_path(text, named_in=document.file)
            self._read(path)
        except SourceRefused as refused:
            self._refuse(document.span(place), text, refused)
        except _OverLimit:
            what = f"this blueprint has more than {MAX_FILES} files, or {size(MAX_BYTES)}"
            self._limit(True, document.span(place), what)
        else:
            return path
        return None

    # Findings --------------------------------------------------------------------------------------------

    def _refuse(self, span: Span, text: str, refused: SourceRefused) -> None:
        found: Rule = FILE_MISSING if refused.missing else PATH_REFUSED
        if isinstance(refused, PackageNotAllowed):
            found = PACKAGE_NOT_ALLOWED
        shown = text if len(text) <= 100 else f"{text[:100]}…"
        self.diagnostics.append(found.at(span, f"{shown!r} is not read: {refused.reason}", hint=refused.hint))

    def _limit(self, over: bool, span: Span, what: str) -> None:
        if over:
            hint = "import fewer blueprints, or nest them less deeply"
            self.diagnostics.append(IMPORT_LIMITS.at(span, what, hint=hint))


class _OverLimit(Exception):
    """Raised when a closure has too many files."""
