"""The keys that encrypt values at rest: which key writes, and which keys read.

An encrypted value is a mark, the id of its key, a check that tells this key from another one of the same id,
a random nonce, and the output of AES-256-GCM. The place of the value (table, column and row) is authenticated
with it, so that a value in another place is damage. A value without the mark is plain.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flujo.domain.wording import listed
from flujo.exceptions import CorruptState, KeyMissing, KeyRingError, WrongKey

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = b"\x00flujo:"
"""Begins an encrypted value. Canonical JSON never begins so; `codec` compresses a blob that does."""
TEXT_MARK = "\x1aflujo:"
"""The same in a column of text."""
PLAIN_TEXT = f"{TEXT_MARK}:"
"""Begins a plain text that would otherwise begin with the mark."""

PLAIN = "plain"
"""Instead of the first key: new values are not encrypted."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_KEY_BYTES, _NONCE_BYTES = 32, 12


@dataclass(frozen=True, slots=True)
class Key:
    """A key of 256 bits with the name by which values refer to it."""

    id: str
    secret: bytes

    @property
    def text(self) -> str:
        """The key as a key ring has it."""
        return f"{self.id}:{base64.b64encode(self.secret).decode()}"

    @property
    def header(self) -> bytes:
        """The part between the mark and the nonce."""
        check = hashlib.sha256(b"flujo key check\x00" + self.secret).hexdigest()[:8]
        return f"{self.id}:{check}:".encode()


def new_key(key_id: str) -> Key:
    """Return a random key.

    Raises:
        KeyRingError: the id cannot be one.
    """
    _check_id(key_id)
    return Key(key_id, os.urandom(_KEY_BYTES))


class KeyRing:
    """Encrypts values with its first key, and decrypts those of each of its keys.

    Args:
        keys: the first one writes; none for a database without encryption.
        writes_plain: new values are not encrypted, whatever the keys are.
        source: the variable that holds the keys, for errors.
    """

    def __init__(self, keys: tuple[Key, ...] = (), *, writes_plain: bool = False, source: str = "") -> None:
        self.keys = keys
        self.source = source
        self.writer = None if writes_plain or not keys else keys[0]
        self._header = b"" if self.writer is None else self.writer.header
        self._by_id = {key.id: key for key in keys}

    @classmethod
    def parse(cls, text: str, source: str) -> KeyRing:
        """Return the key ring of `ID:KEY,ID:KEY`; the first entry may be `plain`.

        Args:
            text: the value of the variable.
            source: the name of the variable.

        Raises:
            KeyRingError: the text is not a key ring, or the package that encrypts is not installed. The error
                never shows a key.
        """
        entries = [entry.strip() for entry in text.split(",")]
        writes_plain = entries[0] == PLAIN
        keys = tuple(_keys(entries[1:] if writes_plain else entries, source))
        if twice := sorted({key.id for key in keys if sum(each.id == key.id for each in keys) > 1}):
            raise KeyRingError(
                f"{source} has two keys with the id {twice[0]!r}", hint="give each key an id of its own"
            )
        if find_spec("cryptography") is None:
            raise KeyRingError(
                f"{source} has keys, and the extra `crypto` is not installed",
                hint="`pip install 'flujo[crypto]'`",
            )
        return cls(keys, writes_plain=writes_plain, source=source)

    def derived(self, purpose: str) -> bytes | None:
        """Return a secret for another purpose, which follows from the key that writes; None without one."""
        if self.writer is None:
            return None
        return hmac.digest(self.writer.secret, b"flujo derived key\x00" + purpose.encode(), "sha256")

    @property
    def shown_keys(self) -> list[str]:
        """The keys as text: what no output may have."""
        return [base64.b64encode(key.secret).decode() for key in self.keys]

    @property
    def prefix(self) -> bytes:
        """How each value begins that is written now; empty when values are not encrypted."""
        return b"" if self.writer is None else MARK + self._header

    @property
    def text_prefix(self) -> str:
        """The same for values in columns of text."""
        return "" if self.writer is None else TEXT_MARK + self._header.decode()

    def is_old(self, stored: bytes | str) -> bool:
        """Return whether a stored value is not as it would be written now."""
        prefix: bytes | str = self.text_prefix if isinstance(stored, str) else self.prefix
        return key_of(stored) is not None if self.writer is None else not stored.startswith(prefix)  # type: ignore[arg-type]

    def encrypt(self, value: bytes, place: str) -> bytes:
        """Return the value as it is stored."""
        return value if self.writer is None else MARK + self._header + self._sealed(value, place)

    def encrypt_text(self, value: str, place: str) -> str:
        """Return a text as it is stored in a column of text."""
        if self.writer is None:
            return PLAIN_TEXT + value if value.startswith(TEXT_MARK) else value
        return self.text_prefix + base64.b64encode(self._sealed(value.encode(), place)).decode()

    def decrypt(self, stored: bytes, place: str) -> bytes:
        """Return the value that is stored.

        Raises:
            KeyMissing: its key is not in the key ring.
            WrongKey: the key of its id is another one.
            CorruptState: the value is damaged, or was written in another place.
        """
        return self._opened(bytes(stored[len(MARK) :]), place) if stored.startswith(MARK) else stored

    def decrypt_text(self, stored: str, place: str) -> str:
        """Return the text that is stored; errors as of `decrypt`."""
        if not stored.startswith(TEXT_MARK):
            return stored
        if stored.startswith(PLAIN_TEXT):
            return stored[len(PLAIN_TEXT) :]
        head, check, body = _parted(stored[len(TEXT_MARK) :].encode("utf-8", "replace"), place)
        try:
            decoded = base64.b64decode(body, validate=True)
            return self._opened(b"%b:%b:%b" % (head, check, decoded), place).decode()
        except ValueError as error:
            raise _damaged(place, head.decode()) from error

    @cached_property
    def _ciphers(self) -> dict[str, Any]:
        # Imported here: a database without encryption does not need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return {key.id: AESGCM(key.secret) for key in self.keys}

    def _sealed(self, value: bytes, place: str) -> bytes:
        assert self.writer is not None  # noqa: S101 - the callers have looked
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self.writer.id].encrypt(nonce, value, _bound(place, self._header))
        return nonce + sealed

    def _opened(self, stored: bytes, place: str) -> bytes:
        """Return the value behind the mark."""
        key_id, check, body = _parted(stored, place)
        header = b"%b:%b:" % (key_id, check)
        named = key_id.decode()
        key = self._by_id.get(named)
        if key is None:
            raise self._missing(named, place)
        if key.header != header:
            raise WrongKey(
                f"{_shown(place)} was encrypted with another key of the id {named!r} than the one in "
                f"{self.source}",
                hint=f"put the key back that had the id {named!r}, and give the new one an id of its own",
                key=named,
            )
        try:
            opened: bytes = self._ciphers[named].decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], _bound(place, header)
            )
        except Exception as error:  # the package's own, which is not imported without keys
            raise _damaged(place, named) from error
        return opened

    def _missing(self, key_id: str, place: str) -> KeyMissing:
        what = f"{_shown(place)} is encrypted with the key {key_id!r}"
        if not self.keys:
            return KeyMissing(
                f"{what}, and no keys are configured",
                hint="name the variable with the keys in flujo.toml: "
                '`[state] encryption = "FLUJO_STATE_KEYS"`',
                key=key_id,
            )
        there = listed([key.id for key in self.keys], "and")
        return KeyMissing(
            f"{what}, which is not in {self.source}: it has {there}",
            hint=f"add the key {key_id!r} behind the first key of {self.source}",
            key=key_id,
        )


NO_KEYS = KeyRing()
"""For a database without encryption."""


def key_of(stored: bytes | str) -> str | None:
    """Return the id of the key that has encrypted a value, or None for a plain one."""
    if isinstance(stored, str):
        is_plain = not stored.startswith(TEXT_MARK) or stored.startswith(PLAIN_TEXT)
        return None if is_plain else stored[len(TEXT_MARK) :].partition(":")[0]
    if not stored.startswith(MARK):
        return None
    return stored[len(MARK) :].partition(b":")[0].decode("ascii", "backslashreplace")


def _keys(entries: list[str], source: str) -> Iterator[Key]:
    if not any(entries):
        raise KeyRingError(f"{source} has no key", hint="`flujo keys new` prints one")
    for number, entry in enumerate(entries, 1):
        key_id, colon, encoded = entry.partition(":")
        if not colon:
            raise KeyRingError(
                f"entry {number} of {source} is not `ID:KEY`", hint="`flujo keys new` prints such an entry"
            )
        _check_id(key_id)
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != _KEY_BYTES:
            raise KeyRingError(
                f"the key {key_id!r} in {source} is not {_KEY_BYTES} bytes in base64",
                hint="`flujo keys new` prints one",
            )
        yield Key(key_id, secret)


def _check_id(key_id: str) -> None:
    if not _ID.fullmatch(key_id) or key_id == PLAIN:
        raise KeyRingError(
            "the id of a key has letters, digits, `.`, `_` and `-`, up to 32 of them, and is not `plain`",
            hint="use a date or a number: `2026-11`, `k2`",
        )


def _bound(place: str, header: bytes) -> bytes:
    return header + place.encode()


def _parted(stored: bytes, place: str) -> tuple[bytes, bytes, bytes]:
    """Return the id of the key, its check, and the rest."""
    parts = stored.split(b":", 2)
    if len(parts) != 3 or not _ID.fullmatch(parts[0].decode("ascii", "replace")):
        raise _damaged(place, None)
    return parts[0], parts[1], parts[2]


def _damaged(place: str, key_id: str | None) -> CorruptState:
    by = "" if key_id is None else f" that the key {key_id!r} has encrypted"
    return CorruptState(
        f"{_shown(place)} is a value{by}, and is damaged or was moved from another place",
        hint="restore the database from a backup; other runs are not affected",
        row=_shown(place),
        key=key_id,
    )


def _shown(place: str) -> str:
    column, _, row = place.partition("\x00")
    return f"{column} of {row.replace(chr(0), ' ')!r}"
