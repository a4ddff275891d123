"""Exports the Python types that blueprints use as JSON Schemas, and compares the files with the code.

Only this module imports a blueprint's callables without running it. Validation reads the exported files and
imports nothing.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic.json_schema import GenerateJsonSchema

    from flujo.blueprint.sources.source_files import Source
    from flujo.services.project.project import Project


@dataclass(frozen=True, slots=True)
class Types:
    """The type files that the code requires, compared with the existing files."""

    files: Mapping[str, bytes]
    """Contents by project path."""
    outdated: tuple[str, ...]
    """Files that are missing or differ."""
    orphans: tuple[str, ...]
    """Files of modules that no blueprint uses any more."""
    untold: tuple[str, ...] = field(default=())
    """Functions without a return annotation, as `module:name`."""


def compare(project: Project) -> Types:
    """Compare the project's Python types with the exported files. Imports the code.

    Raises:
        CallableError: a callable is not allowed, or its module cannot be imported.
    """
    from flujo.blueprint.sources.source_files import FileSource
    from flujo.blueprint.sources.type_stubs import path_of, written

    source = FileSource(project.root)
    schemas, untold = _schemas(project, source)
    files = {path_of(module): written(module, types, source) for module, types in schemas.items()}
    existing = dict(_exported(project.root))
    return Types(
        files,
        outdated=tuple(path for path, data in files.items() if existing.get(path) != data),
        orphans=tuple(path for path in existing if path not in files),
        untold=untold,
    )


def write(project: Project, types: Types) -> None:
    """Write the outdated files and delete the orphans.

    Raises:
        SettingsError: a file cannot be written.
    """
    try:
        for path in types.outdated:
            target = project.root / path
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(types.files[path])
        for path in types.orphans:
            (project.root / path).unlink()
    except OSError as error:
        raise SettingsError(f"{error.filename} cannot be written: {error.strerror}") from error


def _schemas(project: Project, source: Source) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Return the schemas by module and name, and the targets without one.

    Types that validation reads from the source text are left out.
    """
    from flujo.blueprint.sources.callables import load_callable
    from flujo.services.project.imports import importable

    importable(project.root)
    schemas: dict[str, dict[str, Any]] = {}
    untold = []
    for target in _named(project, source):
        module, _, name = target.partition(":")
        schema = _schema(load_callable(target, project.settings.blueprints.allow_callables))
        if schema is None:
            untold.append(target)
        else:
            schemas.setdefault(module, {})[name] = schema
    return schemas, tuple(untold)


def _named(project: Project, source: Source) -> list[str]:
    from flujo.blueprint.loader import Loader
    from flujo.blueprint.rules.type_stubs import targets
    from flujo.blueprint.sources.annotation_schemas import is_whole
    from flujo.blueprint.sources.signatures import read_module

    found: set[str] = set()
    for path in project.blueprint_paths():
        loader = Loader(source, project.settings.blueprints.allow_callables)
        loader.load_entry(path)
        found.update(target for unit in loader.units.values() for target, _ in targets(unit))
    modules = {name: read_module(name, source) for name in {target.partition(":")[0] for target in found}}

    def is_readable_from_text(target: str) -> bool:
        place, _, name = target.partition(":")
        module = modules[place]
        signature = module.names.get(name) if module is not None else None
        return signature is not None and is_whole(signature.returns)

    return sorted(target for target in found if not is_readable_from_text(target))


def _schema(thing: Any) -> Any:
    """Return the JSON Schema of a class, or of a function's return annotation."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        hint = get_type_hints(thing).get("return") if inspect.isroutine(thing) else thing
        if hint in (None, Any, type(None)) or inspect.isgeneratorfunction(thing):
            return None
        return TypeAdapter(hint).json_schema(mode="serialization", schema_generator=_as_recorded())
    except (PydanticUserError, NameError, TypeError):
        return None  # not a JSON type, or a name that exists only for type checkers


def _as_recorded() -> type[GenerateJsonSchema]:
    """Return a schema generator for journal values: fields with a default are always present."""
    from pydantic.json_schema import GenerateJsonSchema

    class AsRecorded(GenerateJsonSchema):
        def field_is_required(self, field: Any, total: bool) -> bool:
            if field["type"] == "typed-dict-field":
                return super().field_is_required(field, total)
            return not field.get("serialization_exclude", False)

    return AsRecorded


def _exported(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files that `flujo types` has written; ignores other files in the folder."""
    from flujo.blueprint.sources.type_stubs import FOLDER, is_ours

    for path in sorted((root / FOLDER).glob("*.json")):
        data = path.read_bytes()
        if is_ours(path.stem, data):
            yield f"{FOLDER}/{path.name}", data
