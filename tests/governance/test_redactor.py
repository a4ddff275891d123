"""Passwords and known secrets never get through, whatever surrounds them."""

from hypothesis import given
from hypothesis import strategies as st

from flujo.governance.redactor import MASK, Redactor, redact_uri


def test_a_url_keeps_everything_but_its_password() -> None:
    uri = "postgresql+psycopg://flujo:s3cr3t@db.example:5432/runs?sslmode=require"
    assert redact_uri(uri) == "postgresql+psycopg://flujo:***@db.example:5432/runs?sslmode=require"


def test_a_password_with_an_at_sign_is_masked_whole() -> None:
    assert redact_uri("postgresql://u:p@ss@host/db") == "postgresql://u:***@host/db"


def test_a_password_in_the_query_is_masked() -> None:
    assert redact_uri("postgresql://host/db?user=u&password=hush&x=1").endswith("?user=u&password=***&x=1")


def test_a_url_without_a_password_stays_as_it_is() -> None:
    for uri in ("sqlite:///.flujo/state.db", "postgresql://user@host/db", "https://example.com/a:b@c"):
        assert redact_uri(uri) == uri


def test_known_secrets_are_masked_also_inside_each_other() -> None:
    assert Redactor(["token-1", "token-1-long"])("a token-1-long b token-1 c") == f"a {MASK} b {MASK} c"


def test_a_secret_too_short_to_be_one_masks_nothing() -> None:
    assert Redactor(["a", ""])("banana") == "banana"


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
def test_no_surroundings_let_a_password_through(before: str, password: str, after: str) -> None:
    assert password not in redact_uri(f"{before} postgresql://user:{password}@host/db").removeprefix(before)
    assert (
        password not in Redactor([password])(f"{before}{password}").removeprefix(before) or password in MASK
    )


@given(st.text())
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = redact_uri(text)
    assert redact_uri(once) == once
