"""The key ring: the first key writes, each key reads, and a value belongs to its place."""

from __future__ import annotations

import base64

import pytest

from flujo.exceptions import CorruptState, KeyMissing, KeyRingError, WrongKey
from flujo.governance.key_ring import MARK, NO_KEYS, TEXT_MARK, Key, KeyRing, key_of, new_key

OLD, NEW = Key("old", b"o" * 32), Key("new", b"n" * 32)
PLACE = "journal.output\x00run-1\x00step"


def ring(text: str) -> KeyRing:
    return KeyRing.parse(text, "KEYS")


def test_the_first_key_writes_and_each_key_reads() -> None:
    old, both = ring(OLD.text), ring(f"{NEW.text}, {OLD.text}")
    of_old = old.encrypt(b'"value"', PLACE)
    of_new = both.encrypt(b'"value"', PLACE)
    assert (key_of(of_old), key_of(of_new)) == ("old", "new")
    assert both.decrypt(of_old, PLACE) == both.decrypt(of_new, PLACE) == b'"value"'
    assert both.encrypt(b'"value"', PLACE) != of_new, "each value has a nonce of its own"
    assert both.is_old(of_old)
    assert not both.is_old(of_new)
    text = both.encrypt_text("who?", PLACE)
    assert text.startswith(TEXT_MARK)
    assert "who" not in text
    assert both.decrypt_text(text, PLACE) == "who?"


def test_a_plain_value_is_read_with_keys_and_written_without_them() -> None:
    keys = ring(f"plain,{OLD.text}")
    assert keys.decrypt(b'"value"', PLACE) == keys.encrypt(b'"value"', PLACE) == b'"value"'
    assert keys.decrypt(ring(OLD.text).encrypt(b"1", PLACE), PLACE) == b"1"
    assert NO_KEYS.encrypt(b"1", PLACE) == b"1"
    assert keys.is_old(ring(OLD.text).encrypt(b"1", PLACE))


def test_a_text_that_begins_like_an_encrypted_one_stays_what_it_is() -> None:
    hostile = f"{TEXT_MARK}old:00000000:AAAA"
    for keys in (NO_KEYS, ring(OLD.text)):
        stored = keys.encrypt_text(hostile, PLACE)
        assert keys.decrypt_text(stored, PLACE) == hostile
    assert key_of(NO_KEYS.encrypt_text(hostile, PLACE)) is None


def test_a_value_that_was_moved_or_damaged_is_refused_with_the_id_of_its_key() -> None:
    keys = ring(OLD.text)
    stored = keys.encrypt(b'"value"', PLACE)
    flipped = stored[:-1] + bytes([stored[-1] ^ 1])
    for value, place in ((stored, PLACE.replace("run-1", "run-2")), (flipped, PLACE), (stored[:40], PLACE)):
        with pytest.raises(CorruptState) as caught:
            keys.decrypt(value, place)
        assert caught.value.facts["key"] == "old"
    for nonsense in (MARK, MARK + b"old", MARK + b"\xff:\xff:x"):
        with pytest.raises(CorruptState):
            keys.decrypt(nonsense, PLACE)
    for text in (TEXT_MARK, f"{TEXT_MARK}old:x:***", f"{TEXT_MARK}\udcff:x:"):
        with pytest.raises(CorruptState):
            keys.decrypt_text(text, PLACE)


def test_a_missing_key_and_another_key_of_the_same_id_are_different_errors() -> None:
    stored = ring(OLD.text).encrypt(b'"value"', PLACE)
    with pytest.raises(KeyMissing, match=r"'old', which is not in KEYS: it has `new`") as missing:
        ring(NEW.text).decrypt(stored, PLACE)
    with pytest.raises(KeyMissing, match="no keys are configured"):
        NO_KEYS.decrypt(stored, PLACE)
    with pytest.raises(WrongKey, match="another key of the id 'old'") as wrong:
        ring(new_key("old").text).decrypt(stored, PLACE)
    assert (missing.value.key, wrong.value.key) == ("old", "old")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "KEYS has no key"),
        ("plain", "KEYS has no key"),
        ("secret", "entry 1 of KEYS is not `ID:KEY`"),
        (f"{OLD.text},secret", "entry 2 of KEYS is not `ID:KEY`"),
        ("old:secret", "the key 'old' in KEYS is not 32 bytes in base64"),
        (f"old:{base64.b64encode(b'short').decode()}", "is not 32 bytes"),
        (f"{OLD.text},{OLD.text}", "two keys with the id 'old'"),
        (f"{NEW.text},plain:{'A' * 43}=", "the id of a key has letters"),
        (f"a b:{'A' * 43}=", "the id of a key has letters"),
    ],
)
def test_a_text_that_is_not_a_key_ring_is_refused_without_showing_it(text: str, words: str) -> None:
    with pytest.raises(KeyRingError) as caught:
        ring(text)
    assert words in caught.value.message
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"
    assert OLD.text.partition(":")[2] not in caught.value.message


def test_without_the_package_that_encrypts_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.governance.key_ring.find_spec", lambda _: None)
    with pytest.raises(KeyRingError) as caught:
        ring(OLD.text)
    assert caught.value.hint == "`pip install 'flujo[crypto]'`"
