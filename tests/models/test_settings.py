"""Settings: all of them in config.yaml, each told in one line when it is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from models import settings
from models.settings import DEFAULT_FILE, PREFIX, InvalidSettings, KeySettings, Settings
from tests.conftest import ROOT

SECRET = "s3cret-" * 12
KEY = f"kid: a, secret: {SECRET}"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.upper().startswith(PREFIX):
            monkeypatch.delenv(variable)


def list_defaults(section: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each setting by its path, with its default as YAML would have it."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from list_defaults(value, (*path, name))
        elif isinstance(value, SecretStr):
            yield (*path, name), value.get_secret_value()
        elif isinstance(value, Path):
            yield (*path, name), str(value)
        else:
            yield (*path, name), list(value) if isinstance(value, tuple) else value


def list_written(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each setting in config.yaml by its path."""
    for name, value in values.items():
        if isinstance(value, dict) and (*path, name) != ("sms", "body"):
            yield from list_written(value, (*path, name))
        else:
            yield (*path, name), value


def test_config_yaml_has_every_setting_with_its_default_and_no_other() -> None:
    written = dict(list_written(yaml.safe_load(DEFAULT_FILE.read_text())))
    assert written == dict(list_defaults(Settings()))
    assert [type(value) for value in written.values()] == [type(value) for _, value in list_defaults(Settings())]


def test_config_yaml_lists_settings_in_the_order_of_the_models() -> None:
    written = [path for path, _ in list_written(yaml.safe_load(DEFAULT_FILE.read_text()))]
    assert written == [path for path, _ in list_defaults(Settings())]


def test_each_line_of_config_yaml_has_a_comment() -> None:
    lines = [line for line in DEFAULT_FILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        is_section = re.fullmatch(r" *[a-z_]+:", line)
        assert is_section or re.search(r"\S +# \S", line) or line.strip().startswith("# "), line


def test_config_yaml_shows_what_a_key_is_made_of() -> None:
    shown = "".join(line for line in DEFAULT_FILE.read_text().splitlines(keepends=True) if line.startswith("  #"))
    (key,) = yaml.safe_load(re.sub(r"(?m)^  # ?", "  ", shown))
    assert set(key) == (set(KeySettings.model_fields) - {"secret"}) | {"secret_file"}
    assert "or secret:" in shown
    defaults = {name: field.default for name, field in KeySettings.model_fields.items() if not field.is_required()}
    assert {name: key[name] for name in defaults} == defaults


def test_config_yaml_is_read() -> None:
    assert settings.load() == Settings()


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "{}", "server:\n", "server: {}\n", "---\n", "server:\n  # port: 1\n"]
)
def test_what_is_left_out_is_the_default(tmp_path: Path, text: str) -> None:
    assert settings.load(write(tmp_path, text)) == Settings()


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "server: {host: 10.0.0.1, port: 1000}\naccounts: {registration: true}\n")
    monkeypatch.setenv("SESSIONS_SERVER__PORT", "2000")
    monkeypatch.setenv("SESSIONS_ACCOUNTS__REGISTRATION", "false")
    monkeypatch.setenv("SESSIONS_SESSIONS__STAFF__IDLE_MINUTES", "5")
    monkeypatch.setenv("SESSIONS_SERVER__TRUSTED_PROXIES", '["10.0.0.0/8", "::1/128"]')
    monkeypatch.setenv("SESSIONS_TOKENS__KEYS", f'[{{"kid": "one", "secret": "{SECRET}"}}]')
    monkeypatch.setenv("SESSIONS_SMS__BODY", '{"phone": "{phone}", "message": "{text}"}')
    loaded = settings.load(file)
    assert (loaded.server.host, loaded.server.port) == ("10.0.0.1", 2000)
    assert not loaded.accounts.registration
    assert (loaded.sessions.staff.idle_minutes, loaded.sessions.staff.absolute_hours) == (5, 12)
    assert [str(network) for network in loaded.server.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert loaded.tokens.keys[0].secret.get_secret_value() == SECRET
    assert loaded.sms.body == {"phone": "{phone}", "message": "{text}"}


def test_an_empty_variable_is_an_empty_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "mail: {host: mail.example.com}\n")
    monkeypatch.setenv("SESSIONS_MAIL__HOST", "")
    assert settings.load(file).mail.host == ""


def test_the_environment_needs_no_setting_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONS_LOG__FORMAT", "json")
    assert settings.load().log.format == "json"


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    for name, text in (("url", "sqlite:///elsewhere.sqlite3"), ("key", SECRET), ("password", "p"), ("header", "A: b")):
        (tmp_path / name).write_text(f"{text}\n")
    file = write(
        tmp_path,
        f"database: {{url_file: {tmp_path}/url}}\n"
        f"tokens:\n  keys:\n  - {{kid: one, secret_file: {tmp_path}/key}}\n"
        f"mail: {{password_file: {tmp_path}/password}}\n"
        f"sms: {{header_file: {tmp_path}/header}}\n",
    )
    loaded = settings.load(file)
    read = (loaded.database.url, loaded.tokens.keys[0].secret, loaded.mail.password, loaded.sms.header)
    assert [secret.get_secret_value() for secret in read] == ["sqlite:///elsewhere.sqlite3", SECRET, "p", "A: b"]


@pytest.mark.parametrize(
    ("variable", "text"),
    [("DATABASE__URL_FILE", "sqlite:///elsewhere.sqlite3"), ("MAIL__PASSWORD_FILE", "p"), ("SMS__HEADER_FILE", "A: b")],
)
def test_a_file_that_a_variable_names_goes_before_config_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    (tmp_path / "secret").write_text(f"{text}\n")
    monkeypatch.setenv(PREFIX + variable, f"{tmp_path}/secret")
    section, _, name = variable.lower().removesuffix("_file").partition("__")
    assert getattr(getattr(settings.load(), section), name).get_secret_value() == text


def test_no_secret_is_shown(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"database: {{url: 'postgresql://u:{SECRET}@h/d'}}\ntokens: {{keys: [{{{KEY}}}]}}\n"
        f"mail: {{password: {SECRET}}}\nsms: {{header: 'X: {SECRET}'}}\n",
    )
    loaded = settings.load(file)
    assert SECRET not in repr(loaded) + str(loaded) + loaded.model_dump_json()


# What is in the file, and what the line says after the file's name: the key first, then what was expected.
WRONG_FILES = {
    "server: {prot: 1}": "server.prot: unknown setting: expected one of host, port, workers",
    "servers: {}": "servers: unknown setting: expected one of server, database",
    "sessions: {user: {idle: 1}}": "sessions.user.idle: unknown setting: expected one of idle_minutes, absolute_hours",
    f"tokens: {{keys: [{{{KEY}, key: x}}]}}": "tokens.keys.0.key: unknown setting: expected one of kid",
    "database: {password: x}": "database.password: unknown setting: expected one of url, pool_size, url_file",
    "server: {port: high}": "server.port: expected a valid integer",
    "server: {port: 65536}": "server.port: expected less than or equal to 65535",
    "server: {port: -1}": "server.port: expected greater than or equal to 0",
    "server: {port: 80.5}": "server.port: expected a valid integer",
    "server: {port: true}": "server.port: expected a valid integer",
    "server: {port: }": "server.port: expected a valid integer",
    "server: {port: [80]}": "server.port: expected a valid integer",
    "server: {host: 5}": "server.host: expected a valid string",
    "server: {workers: 1000}": "server.workers: expected less than or equal to 256",
    "server: {address: sessions.example.com}": "server.address: expected something like https://sessions.example.com",
    "server: {address: 'https://example.com/'}": "server.address: ",
    "server: {trusted_proxies: [here]}": "server.trusted_proxies.0",
    "server: {trusted_proxies: 10.0.0.0/8}": "server.trusted_proxies: expected a valid tuple",
    "server: {shutdown_seconds: 0}": "server.shutdown_seconds: expected greater than 0",
    "server: 5": "server: expected ",
    "server: []": "server: expected ",
    "database: {url: 'mysql://h/d'}": "database.url: expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
    "database: {url: ''}": "database.url: expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
    "database: {pool_size: 0}": "database.pool_size: expected greater than or equal to 1",
    "sessions: {seen_seconds: 1801}": "sessions.seen_seconds: expected at most half of the shortest idle_minutes",
    "sessions: {user: {idle_minutes: 1}}": "sessions.seen_seconds: expected at most half of the shortest idle_minutes",
    "tokens: {keys: [{kid: a, secret: short}]}": "tokens.keys.0.secret: expected at least 32 bytes for HS256, got 5",
    f"tokens: {{algorithms: [HS512], keys: [{{kid: a, algorithm: HS512, secret: {'x' * 63}}}]}}":
        "tokens.keys.0.secret: expected at least 64 bytes for HS512, got 63",
    "tokens: {keys: [{kid: a}]}": "tokens.keys.0.secret: field required",
    f"tokens: {{keys: [{{secret: {SECRET}}}]}}": "tokens.keys.0.kid: field required",
    f"tokens: {{keys: [{{kid: ../a, secret: {SECRET}}}]}}": "tokens.keys.0.kid: ",
    f"tokens: {{keys: [{{{KEY}, algorithm: none}}]}}": "tokens.keys.0.algorithm: expected 'HS256', ",
    f"tokens: {{keys: [{{{KEY}, algorithm: RS256}}]}}": "tokens.keys.0.algorithm: expected 'HS256', ",
    f"tokens: {{keys: [{{{KEY}, algorithm: HS512}}]}}": "tokens.keys: a: HS512 is not one of the algor",
    f"tokens: {{keys: [{{{KEY}}}, {{{KEY}}}]}}":
        "tokens.keys: expected a different kid for each key",
    f"tokens: {{keys: [{{{KEY}, check_only: true}}]}}":
        "tokens.keys: expected at least one key that is not check_only",
    "tokens: {keys: [{kid: a, secret_file: /nowhere/key}]}":
        "tokens.keys.0.secret_file: /nowhere/key can't be read: No such file or directory",
    "tokens: {keys: [{kid: a, secret_file: /}]}": "tokens.keys.0.secret_file: / can't be read: Is a directory",
    f"tokens: {{keys: [{{{KEY}, secret_file: /x}}]}}": "tokens.keys.0.secret: either secret or secret_file",
    "tokens: {algorithms: []}": "tokens.algorithms: ",
    "tokens: {algorithms: [none]}": "tokens.algorithms.0: expected 'HS256', 'HS384' or 'HS512'",
    "tokens: {access_seconds: 0}": "tokens.access_seconds: expected greater than 0",
    "tokens: {access_seconds: 100000000000}": "tokens.access_seconds: expected less than or equal to 10000000",
    "tokens: {access_seconds: 86401, longest_days: 1}":
        "tokens.access_seconds: expected no more than longest_days",
    "sessions: {most: many}": "sessions.most: expected a valid integer",
    "sessions: {user: {idle_minutes: 0, absolute_hours: 1}}": "sessions.user.idle_minutes: expected greater than 0",
    "accounts: {registration: maybe}": "accounts.registration: expected a valid boolean",
    "accounts: {country: Russia}": "accounts.country: expected something like DE",
    "accounts: {password_length: 4}": "accounts.password_length: expected greater than or equal to 8",
    "mail: {security: ssl}": "mail.security: expected 'starttls', 'tls' or 'none'",
    "sms: {address: 'ftp://x'}": "sms.address: ",
    "sms: {header: Bearer}": "sms.header: expected NAME: VALUE",
    "sms: {header: 'Bad Name: x'}": "sms.header: expected NAME: VALUE",
    'sms: {header: "Key: a\\nb"}': "sms.header: expected NAME: VALUE",
    "sms: {header: 'Key: é'}": "sms.header: expected NAME: VALUE",
    "sms: {body: {}}": "sms.body: ",
    "mail: {sender: ''}": "mail.sender: expected something like Sessions <sessions@example.com>",
    "mail: {sender: nonsense}": "mail.sender: ",
    "mail: {sender: Sessions <}": "mail.sender: ",
    "mail: {sender: Sessions <@>}": "mail.sender: ",
    'mail: {sender: "Sessions <a@b.example>\\r\\nBcc: x@example.com"}': "mail.sender: ",
    'server: {hsts: "max-age=1\\nX: y"}': "server.hsts: expected something like max-age=31536000",
    "server: {address: 'https://a.example?x'}": "server.address: ",
    "places: {city_file: /nowhere/cities.mmdb}": "places.city_file: there is no such file",
    "database: {url: 'sqlite:///'}": "database.url: expected sqlite:///FILE",
    "database: {url: 'sqlite:///:memory:'}": "database.url: expected sqlite:///FILE",
    "database: {url: 'sqlite:///x?mode=ro'}": "database.url: expected sqlite:///FILE",
    "database: {url: 'postgresql://u:p@h:abc/x'}": "database.url: expected sqlite:///FILE",
    "sms: {format: xml}": "sms.format: expected 'json' or 'form'",
    "sms: {body: text}": "sms.body: expected a valid dictionary",
    "log: {level: loud}": "log.level: expected 'debug', 'info', 'warning' or 'error'",
}  # fmt: skip


@pytest.mark.parametrize(("text", "line"), WRONG_FILES.items(), ids=WRONG_FILES.values())
def test_what_is_wrong_in_the_file_is_told_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InvalidSettings) as raised:
        settings.load(file)
    told = str(raised.value)
    assert told.startswith(f"{file}: {line}")
    assert "\n" not in told
    assert SECRET not in told


WRONG_YAML = {
    "server: {port: 1": "line 1: expected YAML: ",
    "server:\n\tport: 1": "line 2: expected YAML: ",
    "server: port: 1": "line 1: expected YAML: ",
    "a: *b": "line 1: expected YAML: ",
    "!!python/object/apply:os.system [true]": "line 1: expected YAML: ",
    "a: 1\n--- \nb: 2": "line 2: expected YAML: ",
    "- server": "expected sections (server, database, ",
    "server": "expected sections (server, database, ",
    "1: 2": "expected sections (server, database, ",
}


@pytest.mark.parametrize(("text", "line"), WRONG_YAML.items(), ids=WRONG_YAML)
def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InvalidSettings) as raised:
        settings.load(file)
    told = str(raised.value)
    assert re.match(rf"{re.escape(str(file))}[:,] {re.escape(line)}", told), told
    assert "\n" not in told


def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    for file, reason in (
        (tmp_path / "missing.yaml", "can't be read: No such file or directory"),
        (tmp_path, "can't be read: Is a directory"),
    ):
        with pytest.raises(InvalidSettings, match=f"^{re.escape(f'{file}: {reason}')}$"):
            settings.load(file)
    for content in (b"\xff\xfe\x00", b"server: \x00", b"\x81"):
        file = tmp_path / "binary.yaml"
        file.write_bytes(content)
        with pytest.raises(InvalidSettings, match=f"^{re.escape(str(file))}.*: expected YAML: ") as raised:
            settings.load(file)
        assert "\n" not in str(raised.value)


def test_a_file_with_a_setting_twice_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "server:\n  port: 1\n  port: 2\n")
    with pytest.raises(InvalidSettings, match=r"line 3: expected YAML: .*port"):
        settings.load(file)


WRONG_VARIABLES = {
    "SERVER__PORT=high": "expected a valid integer",
    "SERVER__PORT=": "expected a valid integer",
    "SERVER__NOPE=1": "unknown setting: expected one of host, port",
    "SERVRE__PORT=1": "unknown setting: expected SESSIONS_<SECTION>__<NAME>, with a section of SERVER, DATABASE",
    "__PORT=1": "unknown setting: expected SESSIONS_<SECTION>__<NAME>",
    "SESSIONS__STAFF__IDLE=1": "unknown setting: expected one of idle_minutes, absolute_hours",
    "SESSIONS__USER__IDLE_MINUTES=0": "expected greater than 0",
    "DATABASE__URL=mysql://h/d": "expected sqlite:///FILE or postgresql://",
    "DATABASE__URL_FILE=/nowhere/url": "/nowhere/url can't be read: No such file or directory",
    "TOKENS__KEYS=one": "expected JSON",
    "TOKENS__KEYS={}": "expected ",
    'TOKENS__KEYS=[{"kid": "a", "secret": "short"}]': "expected at least 32 bytes for HS256, got 5",
    'TOKENS__KEYS=[{"kid": "a", "secret_file": "/nowhere/key"}]': "/nowhere/key can't be read",
    "TOKENS__ALGORITHMS=[]": "",
    "TOKENS__ALGORITHMS=HS256": "expected JSON",
    "ACCOUNTS__REGISTRATION=perhaps": "expected a valid boolean",
    "SMS__HEADER=Bearer": "expected NAME: VALUE",
    "MAIL__SECURITY=ssl": "expected 'starttls', 'tls' or 'none'",
    "LOG__LEVEL=LOUD": "expected 'debug', 'info', 'warning' or 'error'",
}


@pytest.mark.parametrize(("variable", "expected"), WRONG_VARIABLES.items(), ids=WRONG_VARIABLES)
def test_what_is_wrong_in_the_environment_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, expected: str
) -> None:
    name, _, value = variable.partition("=")
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(InvalidSettings) as raised:
        settings.load()
    told = str(raised.value)
    assert told.startswith(f"{PREFIX}{name}")
    assert expected in told
    assert "\n" not in told


def test_other_programs_variables_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SESSION_SERVER__PORT", "MY_SESSIONS_SERVER__PORT", "PORT"):
        monkeypatch.setenv(variable, "none of ours")
    assert settings.load() == Settings()


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "variables", "line"),
    [
        ("server: {prot: 1}", {}, "{file}: server.prot: unknown setting: expected one of host, port, "),
        ("", {"SESSIONS_SERVRE__PORT": "1"}, "SESSIONS_SERVRE__PORT: unknown setting: expected SESSIONS_<SECTION>__"),
    ],
    ids=["file", "environment"],
)
def test_a_server_with_wrong_settings_does_not_start(
    tmp_path: Path, text: str, variables: dict[str, str], line: str
) -> None:
    file = write(tmp_path, text)
    ended = subprocess.run(
        [sys.executable, ROOT / "server.py", "serve", "--config", file],
        env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.startswith(line.format(file=file))
    assert ended.stderr.count("\n") == 1
    assert not ended.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]
