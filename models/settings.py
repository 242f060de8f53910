"""Settings: `config.yaml`, overridden by `SESSIONS_<SECTION>__<NAME>` in the environment."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from models.schema import Kind

PREFIX = "SESSIONS_"
DEFAULT_FILE = Path(__file__).parent.parent / "config.yaml"


def _is_number(value: Any) -> Any:
    # Python counts True as 1; a person who writes it means something else.
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _like(pattern: str, example: str) -> AfterValidator:
    """A text of this pattern; one that is not is told an example."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("form", "expected something like {example}", {"example": example})
        return text

    return AfterValidator(check)


Integer = Annotated[int, BeforeValidator(_is_number)]
Positive = Annotated[Integer, Field(gt=0, le=10_000_000)]
LARGEST_PORT = 65535
Port = Annotated[Integer, Field(ge=0, le=LARGEST_PORT)]
MOST_WORKERS = 256
Algorithm = Literal["HS256", "HS384", "HS512"]

# RFC 7518, section 3.2: a key at least as long as the hash.
KEY_BYTES: dict[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}


class InvalidSettings(Exception):
    """One line for a person: which file, which key, what was expected."""


class Section(BaseModel):
    """A part of the settings; an unknown key is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Settings that may be read from a file instead: the name of the setting that names the file.
    from_files: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def read_secret_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name, file_name in cls.from_files.items():
            if not (path := values.pop(file_name, None)):
                continue
            if values.get(name):
                raise ValueError(f"{name}: either {name} or {file_name}, not both")
            try:
                values[name] = Path(str(path)).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise ValueError(f"{file_name}: {path} can't be read: {reason}") from None
        return values


class Server(Section):
    """Where the server listens, and who stands before it."""

    host: str = "127.0.0.1"
    port: Port = 8888
    workers: Annotated[Integer, Field(ge=0, le=MOST_WORKERS)] = 0
    address: Annotated[str, _like(r"(https?://[^/?#\s]+)?", "https://sessions.example.com")] = ""
    hosts: tuple[Annotated[str, _like(r"[^/\s:]+|\[[0-9A-Fa-f:.]+\]", "sessions.example.com")], ...] = ()
    origins: tuple[Annotated[str, _like(r"https?://[^/?#\s]+", "https://shop.example.com")], ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    hsts: Annotated[str, _like(r"[ -~]*", "max-age=31536000")] = "max-age=31536000; includeSubDomains"
    header_bytes: Annotated[Integer, Field(ge=8192, le=1_048_576)] = 131_072
    url_bytes: Annotated[Integer, Field(ge=1024, le=65_536)] = 8192
    body_bytes: Annotated[Integer, Field(ge=16_384, le=1_048_576)] = 65_536
    connections: Annotated[Integer, Field(ge=0, le=1_000_000)] = 0
    idle_seconds: Positive = 60
    body_seconds: Positive = 60
    request_seconds: Positive = 30
    shutdown_seconds: Positive = 30


class DatabaseSettings(Section):
    """Which database, and how many connections."""

    from_files = {"url": "url_file"}

    url: SecretStr = SecretStr("sqlite:///data/sessions.sqlite3")
    pool_size: Annotated[Integer, Field(ge=1, le=200)] = 5

    @model_validator(mode="after")
    def check_url(self) -> Self:
        text = self.url.get_secret_value()
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            url = None
        is_file = text.startswith("sqlite:///") and url and url.database not in (None, "", ":memory:") and not url.query
        if not url or not (is_file or text.startswith("postgresql://")):
            raise ValueError("url: expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
        return self


class KeySettings(Section):
    """One key of the key set."""

    from_files = {"secret": "secret_file"}

    kid: Annotated[str, _like(r"[A-Za-z0-9._-]{1,64}", "2026-11")]
    secret: SecretStr
    algorithm: Algorithm = "HS256"
    check_only: bool = False

    @model_validator(mode="after")
    def check_length(self) -> Self:
        least = KEY_BYTES[self.algorithm]
        if (length := len(self.secret.get_secret_value().encode())) < least:
            raise ValueError(f"secret: expected at least {least} bytes for {self.algorithm}, got {length}")
        return self


class TokenSettings(Section):
    """Which keys sign and check tokens, and how long tokens live."""

    keys: tuple[KeySettings, ...] = ()
    key_file: Path = Path("data/signing.key")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("HS256",)
    access_seconds: Positive = 900
    longest_days: Positive = 366

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        kids = [key.kid for key in self.keys]
        if len(set(kids)) < len(kids):
            raise ValueError("keys: expected a different kid for each key")
        if self.keys and all(key.check_only for key in self.keys):
            raise ValueError("keys: expected at least one key that is not check_only, to sign with")
        for key in self.keys:
            if key.algorithm not in self.algorithms:
                raise ValueError(f"keys: {key.kid}: {key.algorithm} is not one of the algorithms allowed")
        if timedelta(seconds=self.access_seconds) > timedelta(days=self.longest_days):
            raise ValueError("access_seconds: expected no more than longest_days")
        return self


class Limits(Section):
    """How long a session lives: without use, and in all."""

    idle_minutes: Positive
    absolute_hours: Positive

    @property
    def idle(self) -> timedelta:
        """The longest time without use."""
        return timedelta(minutes=self.idle_minutes)

    @property
    def absolute(self) -> timedelta:
        """The longest time in all."""
        return timedelta(hours=self.absolute_hours)


class UserLimits(Limits):
    """The defaults for users."""

    idle_minutes: Positive = 43_200
    absolute_hours: Positive = 8_760


class ClientLimits(Limits):
    """The defaults for clients."""

    idle_minutes: Positive = 129_600
    absolute_hours: Positive = 8_760


class StaffLimits(Limits):
    """The defaults for users who are staff."""

    idle_minutes: Positive = 60
    absolute_hours: Positive = 12


class SessionSettings(Section):
    """Limits of sessions for each kind of account and for staff."""

    user: UserLimits = UserLimits()
    client: ClientLimits = ClientLimits()
    staff: StaffLimits = StaffLimits()
    most: Positive = 100
    seen_seconds: Positive = 60
    sweep_seconds: Positive = 60
    recent_minutes: Positive = 10

    @model_validator(mode="after")
    def _check_seen(self) -> Self:
        shortest = min(limits.idle_minutes for limits in (self.user, self.client, self.staff))
        if self.seen_seconds > shortest * 30:
            # What is used all the time would count as idle before it is written that it was used.
            raise ValueError(f"seen_seconds: expected at most half of the shortest idle_minutes, which is {shortest}")
        return self

    @property
    def recent(self) -> timedelta:
        """How long a password that was given counts for acts that ask for it."""
        return timedelta(minutes=self.recent_minutes)

    def limits(self, kind: Kind, is_staff: bool) -> Limits:
        """The limits for a session of this kind of account."""
        if is_staff:
            return self.staff
        limits: Limits = getattr(self, kind.name)
        return limits


class AccountSettings(Section):
    """Registration, codes and passwords."""

    registration: bool = True
    country: Annotated[str, _like(r"([A-Z]{2})?", "DE")] = ""
    password_length: Annotated[Integer, Field(ge=8, le=64)] = 8
    code_minutes: Positive = 10
    code_attempts: Annotated[Integer, Field(ge=1, le=20)] = 5
    code_again_seconds: Positive = 60


class GuessSettings(Section):
    """How often passwords and codes may be tried, and codes be sent."""

    tries: Positive = 10
    network_tries: Positive = 100
    sends: Positive = 5
    network_sends: Positive = 50
    first_wait_seconds: Positive = 2
    longest_wait_seconds: Positive = 900
    forget_hours: Positive = 24

    @property
    def forget(self) -> timedelta:
        """How long a try is counted."""
        return timedelta(hours=self.forget_hours)


class EventSettings(Section):
    """What is kept of what happened."""

    keep_addresses_days: Annotated[Integer, Field(ge=0, le=36_500)] = 365
    keep_days: Annotated[Integer, Field(ge=0, le=36_500)] = 0

    @property
    def keep_addresses(self) -> timedelta | None:
        """How long the addresses that requests came from are kept; None: for good."""
        return timedelta(days=self.keep_addresses_days) if self.keep_addresses_days else None

    def since(self, now: datetime) -> datetime | None:
        """From when on events are kept; None: for good."""
        return now - timedelta(days=self.keep_days) if self.keep_days else None


class MailSettings(Section):
    """How mail is sent; without a host it goes to the log."""

    from_files = {"password": "password_file"}

    host: str = ""
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: SecretStr = SecretStr("")
    sender: Annotated[str, _like(r"[^\r\n]*[^\s<>@]+@[^\s<>@]+>?", "Sessions <sessions@example.com>")] = (
        "Sessions <sessions@localhost>"
    )


class SmsSettings(Section):
    """The HTTP gateway that sends SMS; without an address they go to the log."""

    from_files = {"header": "header_file"}

    address: Annotated[str, _like(r"(https?://\S+)?", "https://gateway.example.com/send")] = ""
    header: SecretStr = SecretStr("")
    format: Literal["json", "form"] = "json"
    body: Annotated[dict[str, str], Field(min_length=1)] = {"to": "{phone}", "text": "{text}"}

    @model_validator(mode="after")
    def check_header(self) -> Self:
        header = self.header.get_secret_value()
        # RFC 9110, section 5.
        if header and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[!-~]([ -~]*[!-~])?", header):
            raise ValueError("header: expected NAME: VALUE")
        return self


class PlaceSettings(Section):
    """Where addresses are looked up."""

    city_file: str = ""

    @model_validator(mode="after")
    def check_file(self) -> Self:
        if self.city_file and not Path(self.city_file).is_file():
            raise ValueError("city_file: there is no such file")
        return self


class LogSettings(Section):
    """What is logged and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    requests: bool = True


class Settings(BaseSettings):
    """Every setting; `config.yaml` lists them with their defaults."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=False
    )

    server: Server = Server()
    database: DatabaseSettings = DatabaseSettings()
    tokens: TokenSettings = TokenSettings()
    sessions: SessionSettings = SessionSettings()
    accounts: AccountSettings = AccountSettings()
    guesses: GuessSettings = GuessSettings()
    events: EventSettings = EventSettings()
    mail: MailSettings = MailSettings()
    sms: SmsSettings = SmsSettings()
    places: PlaceSettings = PlaceSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file (which arrives as `init_settings`)."""
        return (env_settings, init_settings)


def load(file: Path = DEFAULT_FILE) -> Settings:
    """The settings in `file`, overridden by the environment.

    Raises InvalidSettings with one line that names the file (or the variable), the key and what was expected.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader) or {}  # noqa: S506
    except OSError as error:
        raise InvalidSettings(f"{file}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSettings(f"{file}: expected YAML: it is not text") from None
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidSettings(f"{file}{where}: expected YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InvalidSettings(f"{file}: expected YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InvalidSettings(f"{file}: expected sections ({', '.join(Settings.model_fields)})")
    _check_variables()
    _drop_overridden(values)
    try:
        # A section that is there but empty (all its lines are comments) means its defaults.
        return Settings(**{key: {} if value is None else value for key, value in values.items()})
    except SettingsError:
        raise InvalidSettings(f"{_broken_variable()}: expected JSON") from None
    except ValidationError as error:
        raise InvalidSettings(_first_line(file, error)) from None


class _Loader(yaml.SafeLoader):
    """YAML that refuses a setting that is there twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, str) and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is there twice", key.start_mark)
            seen.add(str(name))
        return super().construct_mapping(node, deep)


def _drop_overridden(values: dict[str, Any]) -> None:
    """Forget what the file says of a secret that a variable sets in its other form."""
    for section, field in Settings.model_fields.items():
        told: Any = values.get(section)
        pairs = getattr(field.annotation, "from_files", {}).items()
        for name, file_name in pairs if isinstance(told, dict) else ():
            for this, other in ((name, file_name), (file_name, name)):
                if f"{PREFIX}{section}__{this}".upper() in os.environ:
                    told.pop(other, None)


def _check_variables() -> None:
    for variable in os.environ:
        section, separator, _ = variable.removeprefix(PREFIX).partition("__")
        if variable.startswith(PREFIX) and not separator and section.lower().partition("_")[0] in Settings.model_fields:
            raise InvalidSettings(f"{variable}: unknown setting: expected two underscores after the section")
        if variable.startswith(PREFIX) and separator and section.lower() not in Settings.model_fields:
            raise InvalidSettings(f"{variable}: unknown setting: expected {PREFIX}<SECTION>__<NAME>, "
                                  f"with a section of {', '.join(Settings.model_fields).upper()}")  # fmt: skip


def _broken_variable() -> str:
    """The variable that should hold a list or a mapping and is not JSON."""
    for variable, value in os.environ.items():
        section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
        model = Settings.model_fields[section].annotation if section in Settings.model_fields else None
        field = getattr(model, "model_fields", {}).get(name)
        if variable.startswith(PREFIX) and field and field.annotation not in (str, int, bool):
            try:
                json.loads(value)
            except ValueError:
                return variable
    return "environment"


def _first_line(file: Path, error: ValidationError) -> str:
    # A name that nobody knows may be why another is missing: it goes first.
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    loc, message = first["loc"], first["msg"]
    if first["type"] == "value_error":
        # Ours begin with the name of the setting in its section.
        name, _, message = message.removeprefix("Value error, ").partition(": ")
        loc = (*loc, name)
    elif first["type"] == "extra_forbidden":
        message = f"unknown setting: expected one of {_known(loc)}"
    else:
        message = f"{message[0].lower()}{message[1:]}".replace("input should be", "expected")
    return f"{_source(file, loc)}: {message}"


def _source(file: Path, loc: tuple[int | str, ...]) -> str:
    """The variable that set what is at `loc`, or its key in the file."""
    for length in range(len(loc), 1, -1):
        variable = PREFIX + "__".join(str(part) for part in loc[:length]).upper()
        if variable in os.environ:
            return variable
    return f"{file}: {'.'.join(str(part) for part in loc)}"


def _known(loc: tuple[int | str, ...]) -> str:
    model: Any = Settings
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = annotation if hasattr(annotation, "model_fields") else annotation.__args__[0]
    return ", ".join((*model.model_fields, *getattr(model, "from_files", {}).values()))
