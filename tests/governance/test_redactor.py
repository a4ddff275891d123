"""Passwords and known secrets are masked in any surroundings."""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.governance.redactor import MASK, Redactor, passwords, redact_uri


def test_a_url_keeps_everything_but_its_password() -> None:
    uri = "postgresql+psycopg://flujo:s3cr3t@db.example:5432/runs?sslmode=require"
    assert redact_uri(uri) == "postgresql+psycopg://flujo:***@db.example:5432/runs?sslmode=require"


def test_a_password_with_an_at_sign_is_masked_completely() -> None:
    assert redact_uri("postgresql://u:p@ss@host/db") == "postgresql://u:***@host/db"


@pytest.mark.parametrize("password", ["p/ss", "p?ss", "p#ss", "p@s/s", "p:ss", "p%ss"])
def test_a_password_with_a_slash_is_masked_completely(password: str) -> None:
    assert (
        redact_uri(f"cannot reach postgresql://u:{password}@host/db")
        == "cannot reach postgresql://u:***@host/db"
    )


def test_the_name_of_a_variable_is_not_a_password() -> None:
    assert redact_uri("postgresql://u:${PGPW}@host/db") == "postgresql://u:${PGPW}@host/db"


def test_a_port_is_not_a_password() -> None:
    for uri in ("http://localhost:8080/users/@me", "http://localhost:8080?at=a@b"):
        assert redact_uri(uri) == uri


def test_a_password_in_the_query_is_masked() -> None:
    assert redact_uri("postgresql://host/db?user=u&password=hush&x=1").endswith("?user=u&password=***&x=1")


def test_a_url_without_a_password_stays_as_it_is() -> None:
    for uri in ("sqlite:///.flujo/state.db", "postgresql://user@host/db", "https://example.com/a:b@c"):
        assert redact_uri(uri) == uri


@pytest.mark.parametrize(
    ("word", "passwords"),
    [("0123456789abcdef", 0), ("a://", 0), ("a://u:p", 0), ("a://u:p@", 1 << 17), ("?token=", 1)],
)
def test_masking_takes_time_in_proportion_to_the_text(word: str, passwords: int) -> None:
    text = word * (1 << 17)  # minutes, if the time grew with the square
    assert redact_uri(text).count(MASK) == passwords


def test_known_secrets_are_masked_also_inside_each_other() -> None:
    redact = Redactor(["token-01", "token-01-long"])
    assert redact("a token-01-long b token-01 c") == f"a {MASK} b {MASK} c"


def test_a_value_of_less_than_eight_characters_is_not_a_secret() -> None:
    assert Redactor(["a", "", "seven77"])("banana seven77") == "banana seven77"


def test_parts_of_eight_characters_are_masked_of_secrets_of_twelve() -> None:
    redact = Redactor(["sk-0123456789abcdef"])
    assert redact("begins sk-01234, ends 89abcdef") == f"begins {MASK}, ends {MASK}"
    assert redact("middle 3456789abc and too short 9abcdef") == f"middle {MASK} and too short 9abcdef"


def test_parts_of_a_shorter_secret_are_not_masked() -> None:
    assert Redactor(["hunter2-000"])("hunter2-00 hunter2-000") == f"hunter2-00 {MASK}"


def test_a_suspected_secret_is_masked_only_as_a_whole() -> None:
    redact = Redactor(suspects=["production-database"])
    assert redact("production-database in production-data") == f"{MASK} in production-data"


@given(st.text(st.sampled_from("abc-9"), min_size=12, max_size=40), st.data())
def test_no_part_of_eight_characters_is_left_unmasked(secret: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(secret) - 8))
    end = data.draw(st.integers(begin + 8, len(secret)))
    before, after = data.draw(st.text("xyz ", max_size=9)), data.draw(st.text("xyz ", max_size=9))
    assert Redactor([secret])(f"{before}{secret[begin:end]}{after}") == f"{before}{MASK}{after}"


def test_passwords_of_urls_are_found_as_written_and_decoded() -> None:
    assert set(passwords("postgresql://u:p%40ssword@h/db?token=abc")) == {"p%40ssword", "p@ssword", "abc"}
    assert not list(passwords("sqlite:///.flujo/state.db"))


@given(
    st.text(),
    st.text(
        alphabet=st.characters(
            blacklist_characters=" /?#'\"\t\n\r\x0b\x0c", blacklist_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]
        ),
        min_size=8,
    ),
    st.text(),
)
def test_a_password_is_masked_in_any_surroundings(before: str, password: str, after: str) -> None:
    assert password not in redact_uri(f"{before} postgresql://user:{password}@host/db").removeprefix(before)
    assert (
        password not in Redactor([password])(f"{before}{password}").removeprefix(before) or password in MASK
    )


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = redact_uri(text)
    assert redact_uri(once) == once


ODD = "s3cr/et+\"q' \\ä\n0"
WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in a URL": lambda secret: quote(secret, safe=""),
    "in a path": quote,
    "in a form": quote_plus,
    "in a URL with small digits": lambda secret: re.sub(
        "%..", lambda found: found[0].lower(), quote(secret, "")
    ),
    "in JSON": json.dumps,
    "in JSON with letters of all languages": lambda secret: json.dumps(secret, ensure_ascii=False),
    "in repr": repr,
    "in ascii": ascii,
    "in the repr of bytes": lambda secret: repr(secret.encode()),
    "in hexadecimal digits": lambda secret: secret.encode().hex(),
}


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("secret", [ODD, "plain-secret-0123456789"])
def test_a_secret_is_masked_in_every_notation(way: str, secret: str) -> None:
    written = WRITTEN[way](secret)
    shown = Redactor([secret])(f"<{written}>")
    assert MASK in shown
    assert len(shown) <= len(f"<'{MASK}'>") + 1, shown


@given(st.binary(max_size=5), st.text(min_size=8, max_size=30), st.binary(max_size=5), st.booleans())
def test_a_secret_in_base64_is_masked_whatever_stands_around_it(
    before: bytes, secret: str, after: bytes, url_safe: bool
) -> None:
    encode = urlsafe_b64encode if url_safe else b64encode
    text = encode(before + secret.encode() + after).decode()
    shown = Redactor([secret])(text)
    assert MASK in shown
    assert len(shown.replace(MASK, "")) <= -(-4 * (len(before) + len(after)) // 3) + 8


def test_a_suspected_secret_is_masked_in_every_notation_too() -> None:
    assert (
        Redactor(suspects=["pass word/1"])("user:pass%20word%2F1@h pass+word%2F1") == f"user:{MASK}@h {MASK}"
    )
