"""Files that people and programs upload: their limits, and where those of a form are stored."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile

from flujo.domain.files import File
from flujo.domain.wording import short
from flujo.exceptions import BodyTooLarge, FileRefused, FlujoError, MediaTypeRefused, ProviderNotGiven
from flujo.governance.screen import visible_line
from flujo.serve.serving import serving, tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import FormData
    from starlette.requests import Request

    from flujo.settings_serve import ServeTable

_LONGEST_NAME = 120
_FILE, _NAME = "#file", "#name"


def admitted(data: bytes, settings: ServeTable, name: str = "") -> bytes:
    """Return a file that a server takes, by its content; its name decides between the types of texts only.

    Raises:
        BodyTooLarge | MediaTypeRefused: the server does not take it.
    """
    if len(data) > settings.max_upload:
        raise _too_large(len(data), settings)
    if settings.upload_types:
        try:
            found = File.of(name, data).media_type
        except FileRefused:
            found = ""
        if not any(fnmatchcase(found, each) for each in settings.upload_types):
            raise MediaTypeRefused(
                f"the file is {found or 'of a type that is not known'}, by its content, and this server "
                f"takes {', '.join(settings.upload_types)}",
                hint="send a file of such a type, or set `[serve] upload_types` in flujo.toml",
                where="body",
            )
    return data


async def with_stored_files(
    request: Request, form: FormData, data: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Store the files of a form; return its fields with references to them, and what is wrong with a file.

    A file is stored before the form is checked, so that a person need not choose it again.

    Args:
        request: the request, of a principal that may start runs.
        form: what it brings.
        data: the texts of its fields. A file `NAME#file` becomes the field `NAME`.
    """
    filled: dict[str, str] = dict(data)
    problems: dict[str, list[str]] = {}
    for field, given in form.multi_items():
        key = field.removesuffix(_FILE)
        if not isinstance(given, UploadFile) or key == field or not given.filename:
            continue
        name = short(visible_line(given.filename), _LONGEST_NAME)
        try:
            filled[key] = await _stored(request, given, name)
            filled[f"{key}{_NAME}"] = name
        except FlujoError as error:
            problems[key] = [f"{name}: {error.message}"]
    return filled, problems


def without_file(data: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the fields of a form without an uploaded file; its provider keeps the bytes."""
    return {name: text for name, text in data.items() if name not in (key, f"{key}{_NAME}")}


async def _stored(request: Request, file: UploadFile, name: str) -> str:
    """Store a file, and return the reference to it as a field of a form holds it."""
    settings = serving(request).settings
    if (file.size or 0) > settings.max_upload:  # before it is read into memory
        raise _too_large(file.size or 0, settings)
    provider = settings.upload_provider or _only_provider(request)
    data = admitted(await file.read(), settings, name)
    return json.dumps((await tasks(request).store_blob(data, provider)).model_dump())


def _only_provider(request: Request) -> str:
    names = list(serving(request).workspace.state_providers)
    if len(names) != 1:
        raise ProviderNotGiven(
            f"this project has {len(names)} state providers, so no provider is chosen for a file",
            hint="set `[state_providers]`, and of several `[serve] upload_provider`, in flujo.toml",
            given=tuple(names),
        )
    return names[0]


def _too_large(count: int, settings: ServeTable) -> BodyTooLarge:
    return BodyTooLarge(
        f"the file has {count:,} bytes, and this server takes files of up to {settings.max_upload:,} bytes",
        hint="send a smaller one, or set `[serve] max_upload_mib` in flujo.toml",
        where="body",
        limit=settings.max_upload,
    )
