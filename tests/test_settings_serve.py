"""`[serve]`: what its tables accept, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.exceptions import SettingsError
from flujo.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.settings_serve import ServeTable

HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$aGFzaA"
ADA = (
    f'[serve.users."ada@example.com"]\npassword_hash = "{HASH}"\nrole = "answerer"\nblueprints = ["triage"]\n'
)
PROXY = '[serve.proxy]\ntrusted = ["10.0.0.0/8"]\nuser_header = "X-Forwarded-User"\n'


HOOK = '[serve.hooks.pay]\nevent = "order.paid"\nkey = "data.order"\nsecret = "${PAY_SECRET}"\n'


def _serve(folder: Path, text: str) -> ServeTable:
    file = folder / "flujo.toml"
    file.write_text(text)
    return load(file).serve


@pytest.mark.parametrize(
    ("text", "is_local", "has_login"),
    [
        ("", True, False),
        ('[serve]\nhost = "::1"', True, False),
        ('[serve]\nhost = "localhost"', True, False),
        ('[serve]\nhost = "0.0.0.0"', False, False),
        ('[serve]\nhost = "flujo.internal"', False, False),
        ('[serve]\npublic_url = "https://flujo.example.com"', False, False),
        ('[serve.users.ada]\nrole = "viewer"', False, False),
        (ADA, False, True),
        (PROXY, False, True),
        ('[serve.proxy]\ntrusted = ["10.0.0.5"]', False, False),
    ],
)
def test_a_user_needs_no_login_on_a_machine_of_their_own_alone(
    text: str, is_local: bool, has_login: bool, tmp_path: Path
) -> None:
    serve = _serve(tmp_path, text)
    assert (serve.is_local, serve.has_login) == (is_local, has_login)


def test_the_prefix_is_the_path_of_the_public_address(tmp_path: Path) -> None:
    assert (
        _serve(tmp_path, '[serve]\npublic_url = "https://example.com/tools/flujo/"').prefix == "/tools/flujo"
    )
    assert _serve(tmp_path, '[serve]\npublic_url = "https://example.com/"').prefix == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[serve]\npublic_url = "flujo.example.com"', "not an address such as"),
        ('[serve]\npublic_url = "https://ada:sesame@example.com"', "not an address such as"),
        ('[serve]\npublic_url = "https://[::1"', "not an address such as"),
        ('[serve]\npublic_url = "https://example.com/?a=1"', "not an address such as"),
        ('[serve]\nsession = "long"', "not an age with its unit"),
        ('[serve.users.ada]\nrole = "king"', "`serve.users.ada.role` must be 'viewer', 'answerer'"),
        ('[serve.users.ada]\npassword_hash = "x"\nrole = "viewer"', "is not a hash of argon2id"),
        ('[serve.users.ada]\nrole = "viewer"\nque = ["a"]', "unknown key `que`.*`queues`"),
        ('[serve.users." "]\nrole = "viewer"', "cannot be the name of a user"),
        ('[serve.proxy]\ntrusted = ["0.0.0.0/0"]', "any client could write the headers"),
        ('[serve.proxy]\ntrusted = ["proxy"]', "neither an address nor a network"),
        ("[serve.proxy]\ntrusted = []", "at least 1 item"),
        ('[serve.proxy]\ntrusted = ["10.0.0.5"]\ngroups_header = "X-Groups"', "needs `user_header`"),
        (f'{PROXY}roles = {{admins = "admin"}}', "`roles` needs `groups_header`"),
        (HOOK.replace("${PAY_SECRET}", "whsec_sesame"), "names the variable that holds it"),
        (HOOK.replace("order.paid", "order paid"), "not the name of an event"),
        (HOOK.replace("hooks.pay", 'hooks."a/b"'), "cannot be the name of a webhook"),
        (HOOK.replace("event =", "evnt ="), "unknown key `evnt`.*`event`"),
        (HOOK.replace('key = "data.order"\n', ""), "`serve.hooks.pay.key` is missing"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        _serve(tmp_path, text)
    assert f"{tmp_path}/flujo.toml:" in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_settings_are_listed_without_the_hash(tmp_path: Path) -> None:
    (tmp_path / "flujo.toml").write_text(f"{ADA}\n{PROXY}\n{HOOK}")
    listed = {key: (value, origin) for key, value, origin in load(tmp_path / "flujo.toml").listed()}
    assert listed["serve.users.ada@example.com.role"] == ("answerer", "flujo.toml:3")
    assert listed["serve.proxy.user_header"] == ("X-Forwarded-User", "flujo.toml:8")
    assert listed["serve.hooks.pay.secret"] == ("${PAY_SECRET}", "flujo.toml:13")
    assert HASH not in str(listed)
