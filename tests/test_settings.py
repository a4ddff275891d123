"""Settings: the environment overrides flujo.toml, which overrides defaults; unusable values are refused."""

import os
from pathlib import Path

import pytest

from flujo.domain.personal_data import ENTITIES, NAMES, Rules
from flujo.domain.providers import Allowed
from flujo.domain.usage import UsageLimits
from flujo.domain.wording import listed
from flujo.exceptions import NamesUnavailable, SettingsError
from flujo.governance.personal_data import models
from flujo.governance.sink import GATE
from flujo.settings import (
    CONFIG_FILE,
    ENV_VARIABLE,
    ENVIRONMENT,
    Settings,
    environment,
    guard_environment,
    load,
    misspelt_variables,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENVIRONMENT, ENV_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path, text: str) -> Path:
    path = folder / "flujo.toml"
    path.write_text(text, "utf-8")
    return path


def refused(folder: Path, text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(write(folder, text))
    return caught.value


def test_without_a_file_the_defaults_apply() -> None:
    settings = load()
    assert settings.state_uri == "sqlite:///.flujo/state.db"
    assert settings.aros.coercion_tolerant_level == 2
    assert settings.blueprints.paths == ("blueprints",)
    assert settings.blueprints.allow_callables == ()
    assert settings.origin("state_uri") == "default"


def test_the_settings_file_of_the_manual_is_accepted(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            """\
# Persistent backend
state_uri = "postgresql://user:pass@host:5432/db"

[settings]
postgres_pool_min = 5
postgres_pool_max = 20

[aros]
coercion_tolerant_level = 2
structured_output_default = "openai_json"

[lockfile]
enabled = true
""",
        )
    )
    assert (settings.settings.postgres_pool_min, settings.settings.postgres_pool_max) == (5, 20)
    assert settings.lockfile.enabled
    assert settings.origin("state_uri") == "flujo.toml:2"
    assert settings.origin("settings.postgres_pool_max") == "flujo.toml:6"


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", "sqlite:///elsewhere.db")
    settings = load(write(tmp_path, 'state_uri = "sqlite:///here.db"'))
    assert settings.state_uri == "sqlite:///elsewhere.db"
    assert settings.origin("state_uri") == "FLUJO_STATE_URI"


def test_an_empty_variable_counts_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URI", "")
    assert load(write(tmp_path, 'state_uri = "sqlite:///here.db"')).state_uri == "sqlite:///here.db"


def test_an_unrelated_variable_is_not_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_URI", "sqlite:///wrong.db")
    monkeypatch.setenv("FLUJO_PROJECT", "theirs")
    assert load().state_uri == "sqlite:///.flujo/state.db"


def test_strictness_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STRICT_DSL", "1")
    assert load().strict_dsl


def test_an_unusable_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STRICT_DSL", "perhaps")
    with pytest.raises(SettingsError, match="FLUJO_STRICT_DSL: `strict_dsl` must be true or false"):
        load()


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_disabled_feature_is_not_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", value)
    assert load().model_dump() == Settings().model_dump()


def test_all_errors_of_a_file_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    error = refused(
        tmp_path,
        """\
coercion_tolerant_level = 1
[aros]
coercion_tolerant_level = 3
[lockfile]
enbled = true
[budgets]
total_cost_limit = 1
strict_dsl = true
[extra]
""",
    )
    place = tmp_path / "flujo.toml"
    assert error.message.splitlines() == [
        f"{place}:1: unknown key `coercion_tolerant_level` in flujo.toml; it belongs under [aros]",
        f"{place}:3: `aros.coercion_tolerant_level` must be less than or equal to 2",
        f"{place}:5: unknown key `enbled` in [lockfile]; did you mean `enabled`?",
        f"{place}:7: unknown key `total_cost_limit` in [budgets]; did you mean `total_cost_usd_limit`?",
        f"{place}:8: unknown key `strict_dsl` in [budgets]; it belongs above the first [table] of flujo.toml",
        f"{place}:9: unknown key `extra` in flujo.toml; there are: {listed(Settings.model_fields, 'and')}",
    ]


def test_the_maximum_of_a_pool_cannot_be_smaller_than_its_minimum(tmp_path: Path) -> None:
    assert "is greater than" in refused(tmp_path, "[settings]\npostgres_pool_min = 30").message


@pytest.mark.parametrize("name", ["flujo", "Team_7", "left", "público", "x" * 63])
def test_a_schema_is_named_in_the_file_or_in_an_environment(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path, f'[settings]\npostgres_schema = "{name}"\n[env.qa.settings]\npostgres_schema = "qa"\n'
    )
    assert load(path).settings.postgres_schema == name
    assert load(path, chosen="qa").settings.postgres_schema == "qa"
    assert ("settings.postgres_schema", "qa", "flujo.toml:4") in list(load(path, chosen="qa").listed())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "letters, digits"),
        ("7up", "letters, digits"),
        ("my app", "letters, digits"),
        ("a-b", "letters, digits"),
        ("a.b", "letters, digits"),
        ("a%sb", "letters, digits"),
        ("a:b", "letters, digits"),
        ("a\\n", "letters, digits"),
        ('a\\"; DROP SCHEMA b', "letters, digits"),
        ("pg_mine", "keeps for itself"),
        ("information_schema", "keeps for itself"),
        ("x" * 64, "longer than 63 bytes"),
        ("é" * 32, "longer than 63 bytes"),
    ],
)
def test_a_name_that_is_not_a_schema_is_refused_with_its_line(tmp_path: Path, name: str, reason: str) -> None:
    for table in ("settings", "env.prod.settings"):
        message = refused(tmp_path, f'[{table}]\npostgres_schema = "{name}"\n').message
        assert message.startswith(f"{tmp_path / 'flujo.toml'}:2: `postgres_schema`")
        assert reason in message


def test_text_that_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path, "[aros]\nx = [1,\n")
    assert error.message.startswith(f"{tmp_path / 'flujo.toml'}:2: not TOML: ")
    assert error.facts["line"] == 2


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flujo.toml"
    path.write_bytes(b'state_uri = "\xff"')
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load(path)


def test_a_placeholder_is_replaced_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hush-hush")
    settings = load(write(tmp_path, 'state_uri = "postgresql://u:${DB_PASSWORD}@h/db"'))
    assert settings.state_uri == "postgresql://u:hush-hush@h/db"


def test_a_placeholder_that_is_not_set_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    error = refused(tmp_path, '\nstate_uri = "postgresql://u:${DB_PASSWORD}@h/db"')
    assert "flujo.toml:2: `state_uri` uses ${DB_PASSWORD}" in error.message


def test_a_listing_never_shows_a_password(tmp_path: Path) -> None:
    settings = load(write(tmp_path, 'state_uri = "postgresql://u:hush-hush@h/db"'))
    listed = {key: value for key, value, _ in settings.listed()}
    assert listed["state_uri"] == "postgresql://u:***@h/db"
    assert "hush" not in str(listed)


def test_a_listing_shows_the_variable_and_not_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush")
    text = 'state_providers.docs = "s3://docs/${TOKEN}"\nblueprints.paths = ["b/${TOKEN}"]\n'
    listed = {key: value for key, value, _ in load(write(tmp_path, text)).listed()}
    assert listed["state_providers.docs"] == "s3://docs/${TOKEN}"
    assert "hush" not in str(listed)
    monkeypatch.setenv("FLUJO_STATE_URI", "sqlite:///here.db")
    over = load(write(tmp_path, 'state_uri = "sqlite:///${TOKEN}.db"'))
    assert ("state_uri", "sqlite:///here.db", "FLUJO_STATE_URI") in list(over.listed())


@pytest.mark.parametrize(
    "line",
    ['lockfile.enabled = "${TOKEN}"', 'settings.postgres_pool_max = "${TOKEN}"',
     'settings.durability = "${TOKEN}"', 'budgets.unknown_price = "${TOKEN}"', '"${TOKEN}" = 1',
     'agents.writer = "${TOKEN}"'],
)  # fmt: skip
def test_an_unusable_value_from_a_variable_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush")
    for text in (line, f"[env.dev]\n{line}"):
        with pytest.raises(SettingsError) as refusal:
            load(write(tmp_path, text), chosen="dev" if "[env" in text else "")
        assert "hush" not in f"{refusal.value} {refusal.value.hint} {refusal.value.facts}"


def test_an_unselected_environment_may_take_numbers_from_variables(tmp_path: Path) -> None:
    text = '[env.prod]\nsettings.postgres_pool_max = "${POOL}"\nlockfile.enabled = "${LOCKED}"\n'
    assert load(write(tmp_path, text)).settings.postgres_pool_max == 10
    assert "must be a whole number" in refused(tmp_path, f'{text}settings.postgres_pool_min = "few"').message


def test_a_misspelt_variable_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_STATE_URL", "sqlite:///x.db")
    assert misspelt_variables() == {"FLUJO_STATE_URL": "FLUJO_STATE_URI"}


ENVIRONMENTS = """\
state_uri = "sqlite:///dev.db"

[lockfile]
enabled = true

[env.dev]
agents."*".model = "local:smollm2"
lockfile.enabled = false

[env.prod]
state_uri = "postgresql://u:${PROD_PASSWORD}@h/db"
[env.prod.agents.writer]
model = "openai:gpt-5-mini"
"""


def test_an_environment_overrides_the_rest_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, ENVIRONMENTS)
    plain, dev = load(path), load(path, chosen="dev")
    assert (plain.lockfile.enabled, dev.lockfile.enabled) == (True, False)
    assert (plain.models, dev.models) == ({}, {"*": "local:smollm2"})
    assert dev.state_uri == "sqlite:///dev.db"
    assert dev.origin("lockfile.enabled") == "flujo.toml:8"
    assert dev.origin("agents.*.model") == "flujo.toml:7"
    assert dev.origin("state_uri") == "flujo.toml:1"
    assert ("agents.*.model", "local:smollm2", "flujo.toml:7") in list(dev.listed())


def test_the_variable_selects_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_ENV", "prod")
    monkeypatch.setenv("PROD_PASSWORD", "hush")
    path = write(tmp_path, ENVIRONMENTS)
    assert load(path).models == {"writer": "openai:gpt-5-mini"}
    assert load(path, chosen="dev").models == {"*": "local:smollm2"}, "an argument overrides a variable"


def test_only_the_selected_environment_needs_its_variables(tmp_path: Path) -> None:
    path = write(tmp_path, ENVIRONMENTS)
    assert load(path, chosen="dev").models
    with pytest.raises(SettingsError, match=r"flujo.toml:11: `state_uri` uses \${PROD_PASSWORD}"):
        load(path, chosen="prod")


def test_an_error_in_an_unselected_environment_is_reported(tmp_path: Path) -> None:
    error = refused(tmp_path, "[env.prod]\nlockfile.enbled = true\n")
    assert "flujo.toml:2: unknown key `enbled` in [lockfile]; did you mean `enabled`?" in error.message
    error = refused(tmp_path, '[env.prod.agents.writer]\nmodle = "x"\n')
    assert "flujo.toml:2: unknown key `modle` in [agents.writer]; did you mean `model`?" in error.message
    assert "is a table" in refused(tmp_path, "env = 3").message
    assert "contains another [env]" in refused(tmp_path, "[env.a.env.b]\nstrict_dsl = true").message


def test_an_unknown_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, ENVIRONMENTS)
    with pytest.raises(SettingsError, match=r"no \[env.prd\]") as refusal:
        load(path, chosen="prd")
    assert refusal.value.hint == "did you mean `prod`?"
    monkeypatch.setenv("FLUJO_ENV", "prod")
    with pytest.raises(SettingsError, match=r"has no flujo\.toml"):
        load()


def test_budgets_are_the_limits_of_every_run(tmp_path: Path) -> None:
    file = tmp_path / "flujo.toml"
    file.write_text("[budgets]\ntotal_cost_usd_limit = 0.5\nrequests_limit = 7\n", "utf-8")
    assert load(file).budgets.limits == UsageLimits(total_cost_usd_limit=0.5, requests_limit=7)
    assert "greater than 0" in refused(tmp_path, "[budgets]\nrequests_limit = 0").message


def test_a_key_that_is_set_or_changed_between_two_runs_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    guard_environment()
    for key in ("first-key-of-late", "second-key-of-late"):
        monkeypatch.setenv("LATE_API_KEY", key)
        guard_environment()
        guard_environment()
        assert key not in GATE.text(f"the key is {key}")


# Providers ------------------------------------------------------------------------------------------------


def test_a_provider_is_read_as_written_and_needs_no_variable(tmp_path: Path) -> None:
    settings = load(
        write(
            tmp_path,
            """\
[providers.kennel]
base_url = "${KENNEL_URL}"
key = "${KENNEL_KEY}"
headers = {X-Team = "dogs", Authorization = "Bearer ${KENNEL_TOKEN}"}
timeout = 30
max_concurrency = 4
rpm = 60
tpm = 90_000
""",
        )
    )
    provider = settings.named_providers["kennel"]
    assert (provider.kind, provider.key_name, provider.timeout_s) == ("openai-chat", "KENNEL_KEY", 30.0)
    assert provider.allowed == Allowed(4, 60, 90_000)
    assert provider.places["key"] == "flujo.toml:3"


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ('[providers.kennel]\nbase_url = "http://kennel"', "openai-chat"),
        ('[providers.kennel]\nbase_url = "http://kennel"\nkind = "openai"', "openai-chat"),
        ('[providers.kennel]\nkind = "openai-responses"', "openai-responses"),
        ("[providers.openai]\nrpm = 60", "openai"),
        ("[providers.anthropic]\nmax_concurrency = 2", "anthropic"),
        ('[providers.anthropic]\nkind = "openai"\nbase_url = "http://kennel"', "openai-chat"),
    ],
)
def test_the_kind_of_a_provider_follows_from_its_name_unless_it_is_written(
    table: str, kind: str, tmp_path: Path
) -> None:
    [provider] = load(write(tmp_path, table)).named_providers.values()
    assert provider.kind == kind


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("[prices.kennel]\ninput_mtok = 1\noutput_mtok = 1", 1, "'kennel' cannot have a price"),
        ('[prices."k*:x"]\ninput_mtok = 1\noutput_mtok = 1', 1, "'k*:x' cannot have a price"),
        ('[prices."kennel:*"]\ninput_mtok = -1\noutput_mtok = 1', 2, "greater than or equal to 0"),
        ('[prices."kennel:*"]\ninput_mtok = 1', 1, "`prices.kennel:*.output_mtok` is missing"),
        ('[prices."kennel:*"]\ninput = 1', 2, "unknown key `input` in [prices.kennel:*]"),
        ("[providers.kennel]\nrpm = 1", 1, "[providers.kennel] has no `base_url`"),
        ('[providers.local]\nbase_url = "http://a"', 1, "`local` names the models of this machine"),
        ('[providers."a:b"]\nbase_url = "http://a"', 1, "'a:b' cannot name a provider"),
        ('[providers.openai]\nkey = "sk-canary"', 2, "`key` names the variable that holds the key"),
        ('[providers.openai]\nbase_url = "http://a:canary@b"', 2, "without a password"),
        ('[providers.openai]\nbase_url = "kennel:80"', 2, "`base_url` is the address of a server"),
        ('[providers.openai]\nkind = "soap"', 2, "`providers.openai.kind` must be 'openai'"),
        ("[providers.openai]\nrpm = 0", 2, "must be greater than or equal to 1"),
        ("[providers.openai]\nrpm = true", 2, "`providers.openai.rpm` must be a whole number"),
        ('[providers.openai]\ntpm = "9"', 2, "`providers.openai.tpm` must be a whole number"),
        ("[providers.openai]\nmax_concurrency = 1.5", 2, "must be a whole number"),
        ("[providers.openai]\ntimeout = inf", 2, "must be a finite number"),
        ("[providers.openai]\ntimeout = 0", 2, "must be greater than 0"),
        ("[providers.openai]\nrpn = 1", 2, "unknown key `rpn` in [providers.openai]; did you mean `rpm`?"),
        ("[providers.openai.headers]\nHost = 'a'", 2, "'Host' cannot be set as a header"),
        ("[providers.openai.headers]\n'a b' = 'a'", 2, "'a b' cannot be set as a header"),
        ('[providers.openai.headers]\na = "canary\\n"', 2, "printable ASCII"),
        ("[providers]\nopenai = 3", 2, "`providers.openai` must be a table"),
        ("providers = 3", 1, "`providers` must be a table"),
        ("[env.prod.providers.openai]\nrpm = -1", 2, "must be greater than or equal to 1"),
    ],
)
def test_an_unusable_provider_is_refused_with_its_line(
    table: str, line: int, message: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, table)
    assert f"flujo.toml:{line}: " in error.message
    assert message in error.message
    assert "canary" not in str(error)


def test_a_listing_shows_no_value_of_a_header(tmp_path: Path) -> None:
    text = '[providers.openai.headers]\nX-Team = "canary"\nAuthorization = "Bearer ${TOKEN}"'
    listing = {key: value for key, value, _ in load(write(tmp_path, text)).listed()}
    assert listing["providers.openai.headers.X-Team"] == "***"
    assert listing["providers.openai.headers.Authorization"] == "Bearer ${TOKEN}"


def test_a_setting_about_repaired_arguments_is_one_of_three(tmp_path: Path) -> None:
    wrong = refused(tmp_path, '[aros]\nrepaired_arguments = "perhaps"')
    assert "`aros.repaired_arguments` must be 'refuse', 'ask' or 'allow'" in wrong.message


# MCP servers ---------------------------------------------------------------------------------------------


def test_texts_of_an_mcp_server_are_listed_as_written_or_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KB_TOKEN", raising=False)
    file = tmp_path / "flujo.toml"
    file.write_text('[mcp.kb]\ncommand = "kb"\nenv = {KB_TOKEN = "${KB_TOKEN}", MODE = "fast"}\n')
    listed = {key: (value, origin) for key, value, origin in load(file).listed() if key.startswith("mcp")}
    assert listed["mcp.kb.command"] == ("kb", "flujo.toml:2")
    assert listed["mcp.kb.env.KB_TOKEN"][0] == "${KB_TOKEN}"
    assert listed["mcp.kb.env.MODE"][0] == "***"


@pytest.mark.parametrize(
    "table",
    [
        'command = "kb"\nenv = {KB_TOKEN = "${KB}"}',
        'command = "kb"\nargs = ["--token=${KB}"]',
        'url = "https://kb/mcp?key=${KB}"',
        'url = "https://kb:${KB}@kb/mcp"',
        'url = "https://kb/mcp"\nheaders = {Authorization = "Bearer ${KB}"}',
        'url = "https://kb/mcp"\nheaders = {Authorization = "Bearer Aikohk0ie"}',
    ],
)
def test_the_secrets_of_an_mcp_server_are_hidden_from_its_use_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    if "${KB}" in table:
        monkeypatch.setenv("KB", "Aikohk0ie")
    file = tmp_path / "flujo.toml"
    file.write_text(f"[mcp.kb]\n{table}\n")
    settings = load(file)
    assert all("Aikohk0ie" not in str(value) for _, value, _ in settings.listed())
    settings.mcp_server("kb")
    assert GATE.text("it is Aikohk0ie") == "it is ***"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "either a `command` or a `url`"),
        ('command = "kb"\nurl = "http://x"', "either a `command` or a `url`"),
        ('url = "http://x"\nenv = {A = "b"}', "`args` and `env` belong to a `command`"),
        ('command = "kb"\nheaders = {A = "b"}', "`headers` belong to a `url`"),
        ('url = "file:///etc/passwd"', "not an address"),
        ('command = "kb"\ntimeout = 0', "timeout"),
        ('comand = "kb"', "unknown key `comand` in [mcp.kb]"),
    ],
)
def test_a_wrong_mcp_server_is_an_error_with_its_line(tmp_path: Path, table: str, words: str) -> None:
    file = tmp_path / "flujo.toml"
    file.write_text(f"[mcp.kb]\n{table}\n")
    with pytest.raises(SettingsError) as raised:
        load(file)
    assert words in raised.value.message
    assert "flujo.toml:" in raised.value.message


def test_settings_are_made_once_for_a_text_and_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / CONFIG_FILE
    file.write_text('state_uri = "sqlite:///${PLACE}.db"\n')
    monkeypatch.setenv("PLACE", "one")
    first = load(file)
    monkeypatch.setenv("SOMETHING_ELSE", "new")
    assert load(file) is first, "no setting reads this variable"
    monkeypatch.setenv("PLACE", "two")
    assert load(file).state_uri == "sqlite:///two.db"
    monkeypatch.setenv("PLACE", "one")
    file.write_text("strict_dsl = true\n")
    assert load(file).strict_dsl
    monkeypatch.setenv("FLUJO_STRICT_DSL", "false")
    assert not load(file).strict_dsl
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file)


def test_a_variable_is_read_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("one", "two", "one", "dreißig"):
        monkeypatch.setenv("PLACE", value)
        assert environment()["PLACE"] == value
    monkeypatch.delenv("PLACE")
    assert "PLACE" not in environment()
    assert environment() == dict(os.environ)


def test_personal_data_is_masked_by_the_variable_and_by_the_rules_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    assert not GATE.hides_personal_data
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "1")
    settings = load(write(tmp_path, '[governance]\nentities = ["email"]\nallow = ["*@example.org"]\n'))
    assert settings.origin("governance.pii_scrub") == "FLUJO_GOVERNANCE_PII_SCRUB"
    assert settings.governance.rules == Rules(entities=("email",), allow=("*@example.org",))
    assert (
        GATE.text("a@example.org b@example.com +44 20 7946 0958") == "a@example.org <EMAIL> +44 20 7946 0958"
    )


def test_the_variable_comes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "0")
    assert not load(write(tmp_path, "[governance]\npii_scrub = true\n")).governance.pii_scrub
    monkeypatch.delenv("FLUJO_GOVERNANCE_PII_SCRUB")
    assert load(tmp_path / "flujo.toml").governance.pii_scrub


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'entities = ["emial"]',
            "`entities` has 'emial', which is not a kind of personal data; did you mean `email`?",
        ),
        ('locales = ["gb"]', "`locales` has 'gb', which is not a known language; there are"),
        ("entities = []", "`entities` is empty: leave it out for all of them, or set `pii_scrub` to false"),
    ],
)
def test_an_unknown_kind_or_language_is_an_error_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    error = refused(tmp_path, f"[governance]\npii_scrub = true\n{text}\n")
    assert f"flujo.toml:3: {words}" in error.message
    assert not GATE.hides_personal_data


@pytest.fixture
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the packages that find names, which nothing here loads."""
    monkeypatch.setattr(models, "find_spec", lambda _: object())


@pytest.mark.usefixtures("_model")
def test_names_are_masked_by_the_variable_beside_the_other_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "1")
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_STRONG", "1")
    settings = load()
    assert settings.origin("governance.pii_strong") == "FLUJO_GOVERNANCE_PII_STRONG"
    assert settings.governance.rules == Rules(entities=(*ENTITIES, *NAMES))
    assert GATE.personal_rules.name_locales == ("en",)
    assert settings.governance.summary.endswith("; names in `en`, in no other language")
    few = load(write(tmp_path, '[governance]\nentities = ["email", "person"]\nlocales = ["en"]\n'))
    assert few.governance.rules == Rules(entities=("email", "person"), locales=("en",))


def test_names_are_not_masked_without_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "1")
    assert load().governance.rules == Rules()
    assert "names" not in load().governance.summary


@pytest.mark.usefixtures("_model")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'requests = "tokenised"',
            "`requests` is 'tokenised', which needs `pii_scrub = true` or its variable",
        ),
        ("pii_strong = true", "`pii_strong` is true, which needs `pii_scrub = true` or its variable"),
        (
            'pii_scrub = true\nentities = ["person"]',
            "`entities` has 'person', which needs `pii_strong = true` or its variable",
        ),
        (
            'pii_scrub = true\npii_strong = true\nentities = ["email"]',
            "`pii_strong` is true, but `entities` has none of `person`, `place` and `organisation`",
        ),
        (
            'pii_scrub = true\npii_strong = true\nlocales = ["en", "de"]',
            "`locales` has 'de', in which no names are found",
        ),
    ],
)
def test_names_that_could_not_be_masked_are_an_error(tmp_path: Path, text: str, words: str) -> None:
    error = refused(tmp_path, f"[governance]\n{text}\n")
    assert words in error.message
    assert "flujo.toml:1" in error.message
    assert not GATE.hides_personal_data


def test_names_are_not_left_out_where_their_model_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "spacy" else object())
    error = refused(tmp_path, "[governance]\npii_scrub = true\npii_strong = true\n")
    assert isinstance(error, NamesUnavailable)
    assert (
        "flujo.toml:3 asks to mask names, and the extra `pii` is not installed: there is no `spacy`"
        in error.message
    )
    assert not GATE.hides_personal_data


def test_an_unusable_value_of_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUJO_GOVERNANCE_PII_SCRUB", "perhaps")
    with pytest.raises(
        SettingsError, match=r"FLUJO_GOVERNANCE_PII_SCRUB: `governance\.pii_scrub` must be true or false"
    ):
        load()
