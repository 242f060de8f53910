"""The demo's rows: the owner's document's own accounts, and some 300 more that live for a month."""

from __future__ import annotations

import base64
import ipaddress
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, text

from models import clock, events
from models.database import Database, is_postgres
from models.events import Cause, Type
from models.origins import Origin, make_origin
from models.passwords import Passwords
from models.places import Places
from models.principals import Principal
from models.schema import CLIENT, KINDS, USER, Kind
from models.settings import SessionSettings

PASSWORD = "nine lanterns by the ferry"  # noqa: S105
SEED = 5
USERS = 122
CLIENTS = 182
DAYS = 30
# One program has more, for a while.
MOST_LIVE = 12
# Refusals that are younger might be held against whoever tries the demo.
REFUSED_HOURS = 3
DOCUMENT_DEVICE = "PostmanRuntime/7.28.3"
DOCUMENT_PHONE = "+79137779135"
DOCUMENT_CREATED = datetime(2021, 9, 8, 12, 22, 26, 72030, UTC)
DOCUMENT_UPDATED = datetime(2021, 9, 8, 15, 11, 20, 864802, UTC)
OPENED = datetime(2021, 9, 1, 8, 0, 11, 209417, UTC)

HOW_TO = f"""
Every account here has the password "{PASSWORD}". Once the server says that it answers, open:

  {{site}}/admin/    as staff@example.com: the desk of the staff
  {{site}}/          as user3@gmail.com: the devices of user 5

For programs, these sign in as staff, as user 5 and as client 1:

  curl {{site}}/auth/user/token/ --json '{{{{"email": "staff@example.com", "password": "{PASSWORD}"}}}}'
  curl {{site}}/auth/user/token/ --json '{{{{"email": "user3@gmail.com", "password": "{PASSWORD}"}}}}'
  curl {{site}}/auth/client/token/ --json '{{{{"phone": "+79137779135", "password": "{PASSWORD}"}}}}'

The answer's "access" is the token to list with, and to end with:

  curl {{site}}/sessions/session-user-l/5/ -H 'Authorization: Bearer TOKEN'
  curl {{site}}/sessions/session-user-d/1/ -H 'Authorization: Bearer TOKEN' -X DELETE
"""

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
LINUX = "Mozilla/5.0 (X11; Linux x86_64)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPAD = "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
ANDROID = f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT}"
CHROME = f"{WEBKIT} Chrome/146.0.0.0"
DEVICES: dict[str, tuple[str, ...]] = {
    "computer": (
        f"{WINDOWS} {CHROME} Safari/537.36",
        f"{WINDOWS} {CHROME} Safari/537.36 Edg/146.0.0.0",
        f"{WINDOWS} {CHROME} YaBrowser/26.3.0.0 Safari/537.36",
        f"{WINDOWS} {CHROME} Safari/537.36 OPR/130.0.0.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:148.0) Gecko/20100101 Firefox/148.0",
        f"{MAC} {CHROME} Safari/537.36",
        f"{MAC} AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.3 Safari/605.1.15",
        f"{LINUX} {CHROME} Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    "phone": (
        f"{IPHONE} Version/26.3 Mobile/15E148 Safari/604.1",
        f"{IPHONE} CriOS/146.0.7680.40 Mobile/15E148 Safari/604.1",
        f"{ANDROID} Chrome/146.0.0.0 Mobile Safari/537.36",
        f"{ANDROID} SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
        "Mozilla/5.0 (Android 16; Mobile; rv:148.0) Gecko/148.0 Firefox/148.0",
        f"Mozilla/5.0 (Linux; Android 14; SM-S921B) {WEBKIT} Chrome/131.0.6778.200 Mobile Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {WEBKIT} Chrome/143.0.7499.110 Mobile Safari/537.36",
        (
            f"Mozilla/5.0 (Linux; arm_64; Android 13; Redmi Note 12) {WEBKIT} "
            "Chrome/142.0.7444.160 YaBrowser/25.12.4.99.00 SA/3 Mobile Safari/537.36"
        ),
    ),
    "tablet": (
        f"{IPAD} Version/17.7 Mobile/15E148 Safari/604.1",
        f"{IPAD} CriOS/144.0.7559.95 Mobile/15E148 Safari/604.1",
        f"Mozilla/5.0 (Linux; Android 14; SM-X710) {WEBKIT} Chrome/141.0.7390.122 Safari/537.36",
        f"Mozilla/5.0 (Linux; Android 13; Lenovo TB-J606F) {WEBKIT} Chrome/138.0.7204.179 Safari/537.36",
    ),
    "program": (
        "curl/8.14.1",
        "python-requests/2.32.5",
        "okhttp/5.1.0",
        "Dart/3.9 (dart:io)",
        "Go-http-client/2.0",
        "PostmanRuntime/7.48.0",
    ),
}
NAMES = {
    "computer": ("Work laptop", "Home computer", "Reception desk", "Рабочий ноутбук", "Домашний компьютер"),
    "phone": ("My phone", "Work phone", "Old phone", "Мой телефон", "Рабочий телефон"),
    "tablet": ("Kitchen tablet", "Children's tablet", "Планшет на кухне", "Планшет детей"),
    "program": ("Nightly export", "Price list", "Выгрузка заказов"),
}


# What people do with their sessions, and how often of a hundred times.
ACTS = {
    "sign_in": 58,
    "refused": 10,
    "asks_code": 2,
    "signs_out": 10,
    "names": 8,
    "ends_another": 6,
    "ends_others": 2,
    "changes_password": 2,
    "staff_ends": 2,
    "staff_resets": 1,
    "stolen": 0.5,
}


@dataclass(frozen=True, slots=True)
class Country:
    """Where people live: how they are called, and which phones and addresses are given to them."""

    weight: int
    # Numbers that ring nowhere: kept for films, and in Russia, which keeps none, of a code without operator.
    phone: str
    phones: int
    networks: tuple[str, ...]
    women: tuple[str, ...]
    men: tuple[str, ...]
    surnames: tuple[str, ...]
    addresses: tuple[str, ...]
    fathers: tuple[str, ...] = ()


RUSSIA = Country(
    weight=58,
    phone="+7945{:07}",
    phones=10_000_000,
    networks=("95.24.0.0/16", "178.176.0.0/16", "5.18.0.0/16", "188.170.0.0/16", "2a00:1370:8110::/48"),
    women=("Анна", "Мария", "Екатерина", "Ольга", "Наталья", "Светлана", "Ирина", "Дарья", "Полина", "Юлия", "Вера"),
    men=("Александр", "Сергей", "Дмитрий", "Андрей", "Алексей", "Иван", "Михаил", "Николай", "Артём", "Павел", "Илья"),
    surnames=(
        "Смирнов", "Иванов", "Кузнецов", "Соколов", "Попов", "Лебедев", "Козлов", "Новиков", "Морозов", "Петров",
        "Волков", "Соловьёв", "Васильев", "Зайцев", "Павлов", "Семёнов", "Голубев", "Виноградов", "Богданов",
        "Воробьёв", "Фёдоров", "Михайлов", "Беляев", "Тарасов", "Белов", "Комаров", "Орлов", "Киселёв", "Щербаков",
    ),
    addresses=(
        "Новосибирск, Красный проспект, {}", "Москва, ул. Лесная, {}", "Санкт-Петербург, Невский проспект, {}",
        "Екатеринбург, ул. Малышева, {}", "Казань, ул. Баумана, {}", "Томск, проспект Ленина, {}",
        "Барнаул, ул. Пушкина, {}", "Омск, ул. Гагарина, {}",
    ),
    fathers=("Александров", "Сергеев", "Дмитриев", "Андреев", "Алексеев", "Иванов", "Михайлов", "Николаев", "Павлов"),
)  # fmt: skip
COUNTRIES = (
    RUSSIA,
    Country(
        weight=12,
        phone="+442079460{:03}",
        phones=1000,
        networks=("86.128.0.0/16", "86.10.0.0/16", "2a00:23c5:10::/48"),
        women=("Olivia", "Amelia", "Priya", "Grace", "Niamh", "Charlotte", "Aisha"),
        men=("Oliver", "George", "Callum", "Arjun", "Harry", "Rhys", "Samuel"),
        surnames=("Clarke", "Patel", "Hughes", "Okafor", "O'Connor", "Whitfield", "Fraser", "Thornton-Reid"),
        addresses=("{} Park Street, Bristol", "{} High Street, Leeds", "Flat {}, Mare Street, London"),
    ),
    Country(
        weight=12,
        phone="+120255501{:02}",
        phones=100,
        networks=("73.12.0.0/16", "98.207.0.0/16", "174.192.0.0/16", "2601:640:8000::/48"),
        women=("Emma", "Sofia", "Madison", "Mei", "Jasmine", "Abigail", "Valentina"),
        men=("Liam", "Noah", "Diego", "Ethan", "Wei", "Jackson", "Marcus"),
        surnames=("Johnson", "Garcia", "Nguyen", "Williams", "Rodriguez", "Chen", "Kowalski", "Brooks"),
        addresses=("{} Maple Avenue, Portland, OR", "{} Congress Street, Austin, TX", "{} Elm Street, Madison, WI"),
    ),
    Country(
        weight=10,
        phone="+493023125{:03}",
        phones=1000,
        networks=("91.0.0.0/16", "87.128.0.0/16", "2003:c0:1234::/48"),
        women=("Hannah", "Lena", "Käthe", "Zeynep", "Marlene", "Johanna"),
        men=("Lukas", "Jürgen", "Felix", "Emre", "Jonas", "Matthias"),
        surnames=("Müller", "Schmidt", "Weiß", "Schröder", "Yılmaz", "Hoffmann", "Krüger", "von der Heide"),
        addresses=("Kastanienallee {}, Berlin", "Hauptstraße {}, Köln", "Marktplatz {}, Freiburg"),
    ),
    Country(
        weight=8,
        phone="+3319900{:04}",
        phones=10_000,
        networks=("90.0.0.0/16", "86.192.0.0/16", "2a01:e0a:12::/48"),
        women=("Chloé", "Inès", "Camille", "Margaux", "Léa"),
        men=("Théo", "Hugo", "Étienne", "Mehdi", "Gaël"),
        surnames=("Lefèvre", "Moreau", "Benali", "Garçon", "d'Aubigné", "Rousseau"),
        addresses=("{} rue des Lilas, Lyon", "{} boulevard Carnot, Lille", "{} quai de la Fosse, Nantes"),
    ),
)
# Where people travel, and where guesses come from.
ABROAD = ("2.72.0.0/16", "78.160.0.0/16", "126.1.0.0/16", "171.224.0.0/16", "83.224.0.0/16", "84.248.0.0/16")
LATIN = str.maketrans(
    dict(zip("абвгдеёзийклмнопрстуфыэçéèëïöüäı", "abvgdeeziyklmnoprstufyeceeeiouai", strict=True))
    | {"ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": "", "ю": "yu", "я": "ya"}
    | {"ß": "ss", "'": "", " ": ""}
)
STAFF, DEPUTY, VIEWER = ("user", 1), ("user", 2), ("user", 3)
DOCUMENT_USER, PROGRAM, DOCUMENT_CLIENT = ("user", 5), ("user", 9), ("client", 1)
# Accounts that are not left to chance, by kind and id.
KNOWN: dict[tuple[str, int], dict[str, Any]] = {
    STAFF: {
        "surname": "Орлова",
        "name": "Вера",
        "patronymic": "Павловна",
        "address": "",
        "email": "staff@example.com",
        "phone": None,
        "is_staff": True,
    },
    DOCUMENT_USER: {
        "surname": "user3",
        "name": "user3",
        "patronymic": "user3",
        "address": "user3address",
        "email": "user3@gmail.com",
        "phone": DOCUMENT_PHONE,
    },
    PROGRAM: {
        "surname": "Stock sync",
        "name": "",
        "patronymic": "",
        "address": "",
        "email": "stock-sync@example.com",
        "phone": None,
    },
    DOCUMENT_CLIENT: {
        "surname": "Client1",
        "name": "Client1",
        "patronymic": "Client1",
        "address": "Client1",
        "phone": DOCUMENT_PHONE,
    },
}


@dataclass(eq=False, slots=True)
class _Device:
    """A device that somebody has, and where it usually is."""

    sort: str
    agent: str
    device_id: str | None
    origin: Origin


@dataclass(eq=False, slots=True)
class _Started:
    """A session, from its start on; its id comes when every start of the house is known."""

    owner: _Person
    sort: str
    device_id: str | None
    origin: Origin
    at: datetime
    used_at: datetime
    novelty: str = ""
    name: str | None = None
    id: int = 0


@dataclass(eq=False, slots=True)
class _Person:
    """An account, its devices, and its live sessions at the time that was last told of."""

    kind: Kind
    row: dict[str, Any]
    country: Country
    devices: list[_Device] = field(default_factory=list)
    live: list[_Started] = field(default_factory=list)
    # The devices and the countries that it has signed in from.
    met: set[str] = field(default_factory=set)

    @property
    def key(self) -> tuple[str, int]:
        """Its kind and id."""
        return self.kind.name, self.row["id"]

    @property
    def principal(self) -> Principal:
        """Who acts, whichever the session."""
        return Principal(self.kind, self.row["id"], 0, "staff" if self.row.get("is_staff") else "")


async def fill(database: Database, passwords: Passwords, places: Places, site: str) -> str:
    """Fill an empty database; how to sign in at `site`."""
    house = _House(await passwords.hash(PASSWORD), places, clock.now())
    house.tell()
    await database.write(_insert, house)
    return HOW_TO.format(site=site)


def _insert(db: Connection, house: _House) -> None:
    newest: dict[str, int] = {}
    for kind in KINDS.values():
        people = [person for person in house.people if person.kind is kind]
        db.execute(insert(kind.accounts), [person.row for person in people])
        db.execute(insert(kind.sessions), [house.make_row(started) for person in people for started in person.live])
        newest[kind.accounts.name] = people[-1].row["id"]
        newest[kind.sessions.name] = max(started.id for started in house.started if started.owner.kind is kind)
    events.append(db, *house.list_events())
    # The ids were given here, and those of ended sessions are in no row: the next must come after them all.
    if is_postgres(db):
        move = text("SELECT setval(pg_get_serial_sequence(:table, 'id'), :newest)")
    else:
        move = text("UPDATE sqlite_sequence SET seq = :newest WHERE name = :table")
    for table, number in newest.items():
        db.execute(move, {"table": table, "newest": number})


class _House:
    """Everybody's month, told act by act, each with the events that the program writes for it.

    Times are counted back from `now`, so that the seed tells the same story at any hour.
    """

    def __init__(self, password_hash: str, places: Places, now: datetime) -> None:
        self.people: list[_Person] = []
        self.started: list[_Started] = []
        self._events: list[tuple[dict[str, Any], _Started | None]] = []
        self._password_hash = password_hash
        self._places = places
        self._now = now
        self._limits = SessionSettings()
        # Chance says who does what; nothing here is a secret.
        self._chance = random.Random(SEED)  # noqa: S311
        self._contacts = {DOCUMENT_PHONE}
        # When staff were at work.
        self._shifts: list[tuple[datetime, datetime]] = []

    def tell(self) -> None:
        """Tell everybody's story up to now."""
        for kind, count in ((USER, USERS), (CLIENT, CLIENTS)):
            for number, created_at in enumerate(self._list_creations(kind, count), start=1):
                self.people.append(self._make_person(kind, number, created_at))
        stories: dict[tuple[str, int], Callable[[_Person], None]] = {
            STAFF: self._live_as_staff,
            DEPUTY: self._live_as_deputy,
            VIEWER: self._live_as_viewer,
            DOCUMENT_USER: self._live_as_in_the_document,
            DOCUMENT_CLIENT: self._live_as_in_the_document,
            PROGRAM: self._live_as_program,
        }
        for person in self.people:
            stories.get(person.key, self._live_as_anybody)(person)
            self._expire(person, self._now)
        self._try_a_list()
        for kind in KINDS.values():
            of_kind = [started for started in self.started if started.owner.kind is kind]
            for number, started in enumerate(sorted(of_kind, key=lambda started: started.at), start=1):
                started.id = number
        changes = Counter((made["kind"], made["account_id"]) for made, _ in self._events)
        for person in self.people:
            person.row["revision"] = changes[person.key]

    def make_row(self, started: _Started) -> dict[str, Any]:
        """The row of a live session, last seen some time since it was last told of."""
        chance, owner = self._chance, started.owner
        limits = self._limits.limits(owner.kind, owner.principal.is_staff)
        ago = timedelta(hours=chance.choice((0.05, 0.5, 2, 12, 40, 90, 300)) * chance.random())
        seen_at = max(started.used_at, self._now - ago)
        refreshed_at = max(started.at, seen_at - timedelta(minutes=14) * chance.random())
        return {
            "id": started.id,
            "account_id": owner.row["id"],
            "sid": base64.urlsafe_b64encode(chance.randbytes(16)).rstrip(b"=").decode(),
            "device_id": started.device_id,
            "name": started.name,
            **started.origin.values(),
            "novelty": started.novelty,
            "created_at": started.at,
            "last_seen_at": seen_at,
            "refreshed_at": refreshed_at,
            "expires_at": min(seen_at + limits.idle, started.at + limits.absolute),
            "generation": 1 + (refreshed_at - started.at) // timedelta(hours=3),
        }

    def list_events(self) -> list[dict[str, Any]]:
        """Every event in the order in which they happened."""
        ordered = sorted(self._events, key=lambda event: event[0]["at"])
        return [made | {"session_id": about.id if about else None} for made, about in ordered]

    def _list_creations(self, kind: Kind, count: int) -> list[datetime]:
        """When accounts were made, oldest first: the house grows, and a quarter came this month."""
        first = [OPENED, OPENED + timedelta(days=1.2), OPENED + timedelta(days=2.3), OPENED + timedelta(days=5.1)]
        first = [*first, DOCUMENT_CREATED] if kind is USER else [DOCUMENT_CREATED]
        fresh = sorted(self._moment(OPENED) for _ in range(count // 4))
        since, until = DOCUMENT_CREATED + timedelta(days=1), self._ago(days=DAYS + 10)
        earlier = count - len(first) - len(fresh)
        return first + sorted(since + (until - since) * self._chance.random() ** 0.6 for _ in range(earlier)) + fresh

    def _make_person(self, kind: Kind, number: int, created_at: datetime) -> _Person:
        """An account and its devices."""
        chance = self._chance
        country = chance.choices(COUNTRIES, [country.weight for country in COUNTRIES])[0]
        known = KNOWN.get((kind.name, number))
        row = {
            "id": number,
            **(known or self._draw_account(kind, country)),
            "image": None,
            "password_hash": self._password_hash,
            "confirmed_phone": False,
            "confirmed_by_staff_at": None,
            "disabled_at": None,
            "created_at": created_at,
            "updated_at": created_at,
        }
        if kind is USER:
            row = {"confirmed_email": False, "is_staff": False, "is_viewer": False, **row}
        person = _Person(kind, row, RUSSIA if known else country)
        sorts = ["computer", "phone"] if kind is USER else ["phone"]
        rare = (("computer", 0.5), ("tablet", 0.3), ("phone", 0.2), ("program", 0.12 if kind is USER else 0.03))
        sorts += [sort for sort, share in rare if chance.random() < share]
        home = self._draw_ip(country)
        for sort in sorts:
            agent = chance.choice(DEVICES[sort])
            device_id = f"{chance.getrandbits(64):016x}" if chance.random() < 0.4 else None
            ip = self._draw_ip(country) if sort == "phone" else home
            person.devices.append(_Device(sort, agent, device_id, make_origin(ip, agent, self._places).described()))
        return person

    def _draw_account(self, kind: Kind, country: Country) -> dict[str, Any]:
        """Names, an address and contacts that nobody has."""
        chance = self._chance
        is_woman = chance.random() < 0.5
        name = chance.choice(country.women if is_woman else country.men)
        surname = chance.choice(country.surnames)
        fields: dict[str, Any] = {"surname": surname, "name": name, "patronymic": ""}
        if country.fathers:
            fields["patronymic"] = chance.choice(country.fathers) + ("на" if is_woman else "ич")
            fields["surname"] = surname + ("а" if is_woman else "")
        fields["address"] = chance.choice(country.addresses).format(chance.randint(1, 140))
        fields["phone"] = self._take(lambda: country.phone.format(chance.randrange(country.phones)))
        if kind is USER:
            mailbox = f"{fields['name']}.{fields['surname']}".lower().translate(LATIN)
            house = chance.choice(("example.com", "example.org"))
            numbers = iter(["", *range(2, 1000)])
            fields["email"] = self._take(lambda: f"{mailbox}{next(numbers)}@{house}")
            if chance.random() < 0.3:
                fields[chance.choice(("phone", "phone", "phone", "email"))] = None
        return fields

    def _take(self, draw: Callable[[], str]) -> str:
        while (contact := draw()) in self._contacts:
            pass
        self._contacts.add(contact)
        return contact

    def _draw_ip(self, country: Country | None = None) -> str:
        """An address of the country, or from abroad."""
        network = ipaddress.ip_network(self._chance.choice(country.networks if country else ABROAD))
        block = self._chance.randrange(network.num_addresses // 256)
        return str(network[block * 256 + self._chance.randint(1, 254)])

    def _draw_origin(self, person: _Person, device: _Device) -> Origin:
        """Where the device is now: mostly where it always is, at times on the way, rarely abroad."""
        where = self._chance.random()
        if where < 0.85:
            return device.origin
        return make_origin(
            self._draw_ip(person.country if where < 0.96 else None), device.agent, self._places
        ).described()

    def _ago(self, **time: float) -> datetime:
        return self._now - timedelta(**time)

    def _moment(self, after: datetime) -> datetime:
        """Some time after `after` in the month; days have their busy and their quiet hours."""
        chance = self._chance
        for _ in range(40):
            at = self._ago(days=chance.randrange(DAYS), hours=chance.triangular(0.3, 23.5, 5))
            if at > after:
                return at
        return after + (self._now - after) * chance.random()

    def _moment_at_work(self, after: datetime) -> datetime | None:
        """Some time after `after` when staff were at work; None where they were not since."""
        later = [shift for shift in self._shifts if shift[1] > after]
        if not later:
            return None
        since, until = self._chance.choice(later)
        since = max(since, after)
        return since + (until - since) * self._chance.random()

    def _write(
        self,
        person: _Person,
        event: Type,
        at: datetime,
        *,
        about: _Started | None = None,
        cause: str | None = None,
        by: _Person | None = None,
        origin: Origin | None = None,
        device: str | None = None,
        reason: str | None = None,
    ) -> None:
        who = by.principal if by else None
        made = events.make(
            person.kind, person.row["id"], event, at,
            device=device, cause=cause, by=who, origin=origin, reason=reason,
        )  # fmt: skip
        self._events.append((made, about))

    def _sign_in(self, person: _Person, device: _Device, at: datetime) -> _Started:
        origin = self._draw_origin(person, device)
        if device.device_id:
            for started in [started for started in person.live if started.device_id == device.device_id]:
                self._end(started, Cause.REPLACED, at, None, origin)
        marks = {"device": origin.device, "country": origin.country}
        # The very first of an account are new to nobody.
        new = next((what for what, mark in marks.items() if person.met and mark not in person.met), "")
        person.met |= set(marks.values())
        started = _Started(person, device.sort, device.device_id, origin, at, at, new)
        self._write(person, Type.STARTED, at, about=started, origin=origin, device=origin.device, cause=new or None)
        self.started.append(started)
        if len(person.live) >= self._limits.most:
            self._end(min(person.live, key=lambda other: other.used_at), Cause.CAP, at, None, origin)
        person.live.append(started)
        return started

    def _end(
        self,
        started: _Started,
        cause: Cause,
        at: datetime,
        by: _Person | None,
        origin: Origin | None = None,
        reason: str | None = None,
    ) -> None:
        started.owner.live.remove(started)
        device = started.origin.device
        self._write(
            started.owner,
            Type.ENDED,
            at,
            about=started,
            cause=cause,
            by=by,
            origin=origin,
            device=device,
            reason=reason,
        )

    def _end_others(self, started: _Started, cause: Cause, at: datetime) -> None:
        for other in [other for other in started.owner.live if other is not started]:
            self._end(other, cause, at, started.owner, started.origin)

    def _expire(self, person: _Person, at: datetime) -> None:
        """End what was idle for too long by then."""
        idle = self._limits.limits(person.kind, person.principal.is_staff).idle
        for started in [started for started in person.live if started.used_at + idle <= at]:
            swept_at = started.used_at + idle + timedelta(seconds=self._limits.sweep_seconds) * self._chance.random()
            self._end(started, Cause.EXPIRED, min(swept_at, at), None)

    def _refuse(self, person: _Person, at: datetime) -> None:
        """A mistyped password, or somebody else's try."""
        origin = self._chance.choice(person.devices).origin
        if self._chance.random() < 0.25:
            origin = make_origin(self._draw_ip(), self._chance.choice(DEVICES["computer"]), self._places).described()
        self._guess(person, Type.REFUSED, at, origin)

    def _guess(self, person: _Person, event: Type, at: datetime, origin: Origin) -> None:
        """What is counted against whoever tries, unless it would still hinder."""
        if at < self._ago(hours=REFUSED_HOURS):
            self._write(person, event, at, origin=origin, device=origin.device)

    def _confirm(self, person: _Person) -> datetime | None:
        """Register, and confirm a contact or have staff do it; when that was, None where it wasn't."""
        chance, row = self._chance, person.row
        origin = person.devices[0].origin
        at: datetime = row["created_at"]
        self._write(person, Type.REGISTERED, at, origin=origin)
        fate = chance.random()
        if fate < 0.07:
            return None
        if fate < 0.15:
            is_fresh = at > self._ago(days=DAYS)
            by_staff = self._moment_at_work(at) if is_fresh else at + timedelta(hours=chance.uniform(1, 40))
            if by_staff:
                staff = self.people[0]
                values = {"confirmed_by_staff_at": by_staff}
                self._change(person, Type.CONFIRMED, by_staff, values, staff, staff.devices[0].origin, "staff")
            return by_staff
        contacts = [contact for contact in person.kind.contacts if row[contact]]
        for contact in contacts[: chance.randint(1, 2)]:
            at += timedelta(minutes=chance.uniform(0.4, 6))
            asked_at = at - timedelta(seconds=20)
            self._write(person, Type.SENT, asked_at, origin=origin, device=origin.device)
            self._change(person, Type.CONFIRMED, at, {f"confirmed_{contact}": True}, None, origin, contact)
        return at

    def _change(
        self,
        person: _Person,
        event: Type,
        at: datetime,
        values: dict[str, Any],
        by: _Person | None,
        origin: Origin | None,
        cause: str | None = None,
    ) -> None:
        person.row |= values | {"updated_at": at}
        self._write(person, event, at, cause=cause, by=by, origin=origin)

    def _live_as_anybody(self, person: _Person) -> None:
        """Register, sign in and out, forget devices, be refused, until now."""
        chance = self._chance
        since = self._confirm(person)
        if since is None:
            return
        if since < self._ago(days=DAYS + 9) and chance.random() < 0.3:
            forgotten = self._sign_in(person, chance.choice(person.devices), self._ago(days=chance.uniform(30.5, 38)))
            forgotten.used_at += timedelta(hours=chance.uniform(0, 6))
        for at, act in sorted(self._draw_acts(max(since, self._ago(days=DAYS))), key=lambda drawn: drawn[0]):
            self._expire(person, at)
            self._do(person, act, at)

    def _draw_acts(self, since: datetime) -> Iterator[tuple[datetime, str]]:
        """What somebody does this month, and when."""
        chance = self._chance
        share = (self._now - since) / timedelta(days=DAYS)
        count = 1 + round(share * chance.choice((1, 2, 3, 4, 6, 8, 11, 15, 25)))
        for act in chance.choices(list(ACTS), list(ACTS.values()), k=count):
            if not act.startswith("staff_"):
                yield self._moment(since), act
            elif found := self._moment_at_work(since):
                yield found, act
        if chance.random() < 0.06 and (disabled := self._moment_at_work(since)):
            yield disabled, "disabled"
            if chance.random() < 0.3 and (enabled := self._moment_at_work(disabled)):
                yield enabled, "enabled"

    def _do(self, person: _Person, act: str, at: datetime) -> None:
        """One act; what can't be done then isn't."""
        chance, staff = self._chance, self.people[0]
        at_work = staff.devices[0].origin
        if act == "enabled":
            self._change(person, Type.ENABLED, at, {"disabled_at": None}, staff, at_work)
        elif act == "asks_code":
            self._guess(person, Type.SENT, at, chance.choice(person.devices).origin)
        elif act == "refused" or (person.row["disabled_at"] and act == "sign_in"):
            self._refuse(person, at)
        elif act == "staff_resets":
            reason = chance.choice(("Called from the old phone", "Forgot it on holiday", "Забыт пароль"))
            self._write(person, Type.RESET_SENT, at, by=staff, origin=at_work, reason=reason)
        elif act == "disabled":
            self._change(person, Type.DISABLED, at, {"disabled_at": at}, staff, at_work)
            for started in list(person.live):
                self._end(started, Cause.DISABLED, at, staff, at_work)
        elif act == "sign_in":
            if len(person.live) < MOST_LIVE:
                self._sign_in(person, chance.choice(person.devices), at)
        elif person.live:
            self._do_in(chance.choice(person.live), act, at)

    def _do_in(self, started: _Started, act: str, at: datetime) -> None:
        """One act in a live session, or upon it."""
        chance, person, staff = self._chance, started.owner, self.people[0]
        if act == "staff_ends":
            reason = chance.choice(("A lost phone", "Left the firm", "Asked for by phone", "Потерян телефон", None))
            self._end(started, Cause.STAFF, at, staff, staff.devices[0].origin, reason)
            return
        if act == "stolen" and chance.random() < 0.5:
            # The owner follows the link in the letter about a new device, wherever the letter is read.
            self._end(started, Cause.LINK, at, None, person.devices[0].origin)
            return
        if act == "stolen":
            thief = make_origin(self._draw_ip(), started.origin.device, self._places).described()
            self._end(started, Cause.THEFT, at, None, thief)
            return
        started.used_at = at
        if act == "signs_out":
            self._end(started, Cause.SIGNED_OUT, at, person, started.origin)
        elif act == "ends_another":
            if others := [other for other in person.live if other is not started]:
                self._end(chance.choice(others), Cause.OWNER, at, person, started.origin)
        elif act == "ends_others":
            self._end_others(started, Cause.OWNER, at)
        elif act == "names":
            started.name = chance.choice([name for name in NAMES[started.sort] if _fits(name, person)])
            self._write(person, Type.NAMED, at, about=started, by=person, origin=started.origin)
        elif act == "changes_password" and chance.random() < 0.3:
            self._change(person, Type.CHANGED, at, {}, person, started.origin, "phone")
        elif act == "changes_password":
            self._change(person, Type.PASSWORD_CHANGED, at, {}, person, started.origin)
            self._end_others(started, Cause.PASSWORD, at)

    def _live_as_staff(self, person: _Person) -> None:
        """Come to work, five days in seven, and sign out in the evening or forget to."""
        self._found(person)
        device = person.devices[0]
        for day in reversed(range(DAYS)):
            if day % 7 in (2, 3):
                continue
            since = self._ago(days=day, hours=self._chance.uniform(9, 9.5))
            until = since + timedelta(hours=self._chance.uniform(5, 7.5))
            self._expire(person, since)
            started = self._sign_in(person, device, since)
            started.used_at = until
            self._shifts.append((since, until))
            if self._chance.random() < 0.6:
                self._end(started, Cause.SIGNED_OUT, until, person, started.origin)
        self._expire(person, self._ago(minutes=40))
        self._sign_in(person, device, self._ago(minutes=40))

    def _live_as_deputy(self, person: _Person) -> None:
        """Be staff while somebody was away."""
        self._live_with_roles(person, [(Type.MADE_STAFF, {"is_staff": True}), (Type.UNMADE_STAFF, {"is_staff": False})])

    def _live_as_viewer(self, person: _Person) -> None:
        """See the desk, with a break."""
        given, taken = (Type.MADE_VIEWER, {"is_viewer": True}), (Type.UNMADE_VIEWER, {"is_viewer": False})
        self._live_with_roles(person, [given, taken, given])

    def _live_with_roles(self, person: _Person, changes: list[tuple[Type, dict[str, Any]]]) -> None:
        """Be given roles and have them taken by staff at work, and sign in for the day after each time."""
        self._found(person)
        staff, device = self.people[0], person.devices[0]
        shifts = sorted(self._chance.sample(self._shifts[:-1], len(changes)))
        for (since, until), (event, values) in zip(shifts, changes, strict=True):
            at = since + (until - since) * self._chance.random()
            self._change(person, event, at, values, staff, staff.devices[0].origin)
            started = self._sign_in(person, device, at + timedelta(minutes=9))
            self._end(started, Cause.SIGNED_OUT, at + timedelta(hours=5), person, started.origin)

    def _live_as_in_the_document(self, person: _Person) -> None:
        """Be confirmed when the document says so; of all sessions only its session 1 is live."""
        postman = make_origin(self._draw_ip(RUSSIA), DOCUMENT_DEVICE, self._places).described()
        self._write(person, Type.REGISTERED, DOCUMENT_CREATED, origin=postman)
        values: dict[str, Any] = {"confirmed_email": True}
        by, cause = None, "email"
        if person.key == DOCUMENT_CLIENT:
            values, by, cause = {"confirmed_by_staff_at": DOCUMENT_UPDATED}, self.people[0], "staff"
        origin = by.devices[0].origin if by else postman
        self._change(person, Type.CONFIRMED, DOCUMENT_UPDATED, values, by, origin, cause)
        # Before every other start of the house, so that its id is 1.
        first = self._sign_in(person, _Device("program", DOCUMENT_DEVICE, None, postman), self._ago(days=DAYS + 11))
        first.used_at = self._ago(minutes=2)
        device = person.devices[0]
        phone = self._sign_in(person, device, self._ago(days=12, hours=3))
        self._end(phone, Cause.SIGNED_OUT, self._ago(days=11, hours=20), person, phone.origin)
        self._refuse(person, self._ago(days=8, hours=4))
        again = self._sign_in(person, device, self._ago(days=6, hours=1))
        self._end(again, Cause.OWNER, self._ago(days=5), person, first.origin)

    def _live_as_program(self, person: _Person) -> None:
        """Sign in at each run and never out, up to the cap; then somebody sees it and mends it."""
        self._found(person)
        home = self._draw_ip(RUSSIA)
        agent = "stock-sync/2.4 python-requests/2.32.5"
        careless = _Device("program", agent, None, make_origin(home, agent, self._places).described())
        for run in range(self._limits.most + 30):
            self._sign_in(person, careless, self._ago(days=9) + run * timedelta(minutes=40))
        mender = self._sign_in(person, person.devices[0], self._ago(days=5))
        self._end_others(mender, Cause.OWNER, self._ago(days=4, hours=23.8))
        self._end(mender, Cause.SIGNED_OUT, self._ago(days=4, hours=23), person, mender.origin)
        agent = agent.replace("2.4", "2.5")
        mended = _Device("program", agent, "stock-sync", make_origin(home, agent, self._places).described())
        for day in reversed(range(5)):
            self._sign_in(person, mended, self._ago(days=day, hours=5))

    def _found(self, person: _Person) -> None:
        """Make an account as the operator does at the command line: confirmed, and from nowhere."""
        person.row["confirmed_by_staff_at"] = person.row["created_at"]
        self._write(person, Type.REGISTERED, person.row["created_at"])

    def _try_a_list(self) -> None:
        """One night somebody far away goes through a list of addresses; one of them is somebody's."""
        origin = make_origin(self._draw_ip(), "python-requests/2.31.0", self._places).described()
        for number in range(40):
            target = self.people[11].row["id"] if number % 8 == 5 else None
            at = self._ago(days=9, hours=14) + timedelta(seconds=number * 11 + self._chance.random() * 5)
            made = events.make(USER, target, Type.REFUSED, at, device=origin.device, origin=origin)
            self._events.append((made, None))


def _fits(name: str, person: _Person) -> bool:
    """Whether somebody of the person's country would write it so."""
    return name.isascii() is not (person.country is RUSSIA)
