"""The files of a step: read once, and kept by the run before the first request that sends them.

    describe:files   decision: input = the paths and references, output = name, type, size and digest of each

The bytes are contents of the run under their digests, so every attempt and every resume sends the same bytes,
on any machine, also when a file has changed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flujo.domain import canonical
from flujo.domain.context_references import BLOBS, ContextReference
from flujo.domain.files import MOST_BYTES, File
from flujo.domain.journal import FILES, EntryKind, new_entry
from flujo.domain.paths import branch
from flujo.domain.wording import json_short, size
from flujo.engine.journal import encoded
from flujo.exceptions import FileRefused
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from flujo.domain.files import Contents
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import BaseStep
    from flujo.engine.frame import Frame


@dataclass(frozen=True, slots=True)
class Attachments:
    """The files of a step, and where their bytes are."""

    files: Sequence[File] = ()
    contents: Contents | None = None


NO_FILES = Attachments()


async def attached(step: BaseStep, frame: Frame, path: StepPath) -> Attachments:
    """Return the files of the step at `path`, from the journal if they are recorded.

    Other paths and references than the recorded ones, after a change of the blueprint, are read anew.

    Raises:
        FileRefused: a file cannot or must not be sent.
        ProviderNotGiven | ProviderFailed | ReferenceMissing | ReferenceCorrupt: of a reference.
        SecretInValue: a file contains a known secret.
    """
    if step.sends is None:
        return NO_FILES
    given = encoded(frame.render(step.sends), f"`files` of step {step.name!r}")
    here, journal = branch(path, "files"), frame.run.journal
    await journal.load_at([here])
    known = journal.attached(here)
    if known is not None and (known.input == given or journal.keeps(path, known.input, lambda: given)):
        files = [File.from_json(each) for each in canonical.decode(known.output or b"[]")]
        return Attachments(files, journal.contents)
    read: dict[str, bytes] = {}
    files = []
    for item in _items(canonical.decode(given), step.name):
        name, data = await _read(item, step.name)
        file = File.of(name, GATE.admit(data, f"file {name!r}"))
        if file.is_text and (text := data.decode()) != (masked := GATE.entering(text, step.masking)):
            data = masked.encode()
            file = File.of(name, data)
        files.append(file)
        read[file.sha256] = data
        if sum(file.size for file in files) > MOST_BYTES:
            raise _too_large(name)
    now = frame.run.clock.now()
    entry = new_entry(
        path=here,
        kind=EntryKind.DECISION,
        attempt=1 if known is None else known.attempt + 1,
        fingerprint=FILES,
        input=given,
        output=canonical.encode([file.to_json() for file in files]),
        started_at=now,
        ended_at=now,
    )
    await journal.attach(entry, read)
    return Attachments(files, _First(read, journal.contents))


@dataclass(frozen=True, slots=True)
class _First:
    """The contents that were just read, without another read from the store."""

    read: Mapping[str, bytes]
    others: Contents

    async def __call__(self, digests: Collection[str]) -> Mapping[str, bytes]:
        missing = set(digests) - self.read.keys()
        return {**self.read, **await self.others(missing)} if missing else self.read


def _items(given: Any, step: str) -> Iterator[Any]:
    """Yield paths and references, of a list or a single one."""
    for item in given if isinstance(given, list) else () if given is None else [given]:
        is_reference = isinstance(item, dict) and {"provider_id", "key"} <= item.keys()
        if not is_reference and (not isinstance(item, str) or not item.strip()):
            raise FileRefused(
                f"step {step!r}: `files` has {json_short(item)}, which is neither a path nor a reference",
                hint="write a path in the project, or the value of a `ContextReference`",
            )
        yield item


async def _read(item: Any, step: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a file."""
    if not isinstance(item, str):
        try:
            reference: ContextReference[bytes] = ContextReference[bytes].model_validate(item)
        except ValidationError as error:
            raise FileRefused(
                f"step {step!r}: `files` has {json_short(item)}, which is not a complete reference",
                hint="write the value of a `ContextReference`: `provider_id`, `key`, and `sha256` and `size`",
            ) from error
        if (reference.size or 0) > MOST_BYTES:
            raise _too_large(reference.key)
        return reference.key, await reference.get()
    blobs = BLOBS.get()
    if blobs is None:
        raise FileRefused(
            f"step {step!r}: file {item!r} cannot be read here",
            hint="run the pipeline with `Flujo` or `flujo run`",
            file=item,
        )
    return item, await blobs.file(item)


def _too_large(name: str) -> FileRefused:
    return FileRefused(
        f"file {name!r}: the files of a step are larger than {size(MOST_BYTES)} together",
        hint="send fewer or smaller files, for instance one at a time in a `map`",
        file=name,
    )
