"""Sessions: where am I signed in, and how do I end it? The application and its command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc

# What is imported stays: looking for garbage among it is a quarter of the start.
gc.disable()
import getpass
import itertools
import json
import logging
import os
import secrets
import shlex
import signal

# Asked to roll over before there is anything to roll over: to die of it would be to stay down. And a terminal that
# closes tells the workers too, where it is their parent that rolls over.
signal.signal(signal.SIGHUP, signal.SIG_IGN)
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop
from sqlalchemy import Connection, make_url
from tornado.netutil import bind_sockets

import workers
from handlers import ROUTES
from handlers.answers import shape_tokens
from handlers.application import Application, Parts, Refusers
from handlers.base import make_headers
from handlers.connections import Connections
from handlers.direct import DirectDelegate
from handlers.listening import Listening
from handlers.live import BEAT_SECONDS
from handlers.operations import TooLargeHandler, UnfitHandler, UnknownHandler
from handlers.requests import RequestLog
from models import accounts, clock, counts, guesses, jobs, keys, restores, sessions
from models import settings as settings_
from models.activity import Activity
from models.chores import Chore
from models.contacts import normalise
from models.database import Database, DatabaseUnavailable, P
from models.delivery import Delivery
from models.migrating import NewerTables
from models.origins import make_origin
from models.passwords import Passwords, WeakPassword
from models.places import Places
from models.retention import ADDRESSES, Retention
from models.schema import KINDS, Kind
from models.settings import LARGEST_PORT, MOST_WORKERS, InvalidSettings, LogSettings, Settings
from models.sqlite import SQLiteDatabase
from models.tail import Tail
from models.tokens import LARGEST_ID, Tokens

gc.freeze()
gc.enable()

ACTIVITY_SECONDS = 5
FOLD_SECONDS = 5
FORGET_MOST = 200
# The collector's oldest generation, how long a round over that may take, and after how many longer ones everything is
# looked at.
FULL_ROUND = 2
LONG_ROUND_SECONDS = 0.05
LONG_ROUNDS = 20
# Between two writes of a chore: other workers, who ask for the lock every so often, get it meanwhile.
REST_SECONDS = 0.02
# What to type for the first of the staff.
ADD_STAFF = ("add-user", "--staff", "--email", "YOU@EXAMPLE.COM")

log = structlog.get_logger("server")


class Stop(Exception):
    """Why the program ends now: one line for a person."""


def open_database(settings: Settings) -> Database:
    """The configured database; nothing is asked of it yet."""
    url = settings.database.url.get_secret_value()
    try:
        if url.startswith("sqlite"):
            return SQLiteDatabase(url)
        # Some megabytes, for those who use it.
        from models.postgres import PostgresDatabase

        return PostgresDatabase(url, settings.database.pool_size)
    except (OSError, ValueError, DatabaseUnavailable) as error:
        raise Stop(f"The database can't be opened: {error}") from None


def find_file(settings: Settings) -> Path | None:
    """The database's file; None where it is no file."""
    url = make_url(settings.database.url.get_secret_value())
    return Path(url.database or "").resolve() if url.get_backend_name() == "sqlite" else None


def require_database(settings: Settings) -> None:
    """Raises Stop where there is none: a new one is of no use to whoever asks, from another folder perhaps."""
    file = find_file(settings)
    if file and not file.exists():
        raise Stop(f"There is no database at {file}.")


def open_parts(settings: Settings) -> Parts:
    """Everything that handlers work with."""
    try:
        places = Places(Path(settings.places.city_file) if settings.places.city_file else None)
    except ValueError as error:
        raise Stop(str(error)) from None
    key_set = keys.load(settings.tokens)
    database = open_database(settings)
    return Parts(
        settings=settings,
        database=database,
        keys=key_set,
        tokens=Tokens(key_set, settings.tokens.access_seconds, timedelta(days=settings.tokens.longest_days)),
        passwords=Passwords(settings.accounts.password_length),
        places=places,
        activity=Activity(database, settings.sessions),
        delivery=Delivery(database, key_set, settings.mail, settings.sms),
        tail=Tail(database),
        jobs=jobs.Jobs(database),
    )


async def close_parts(parts: Parts) -> None:
    """Write what is still in memory and let everything go."""
    with contextlib.suppress(DatabaseUnavailable):
        await parts.activity.write()
    await parts.database.close()
    parts.passwords.close()
    parts.places.close()


def make_application(parts: Parts) -> Application:
    """The application on `parts`."""

    log_request = RequestLog(parts.settings.log.format == "json", parts.settings.log.requests)
    return Application(
        parts,
        ROUTES,
        Refusers(TooLargeHandler, UnfitHandler),
        DirectDelegate,
        make_headers(parts.settings.server),
        default_handler_class=UnknownHandler,
        log_function=log_request,
        cross_origin_protection=True,
    )


async def prepare_database(database: Database, *, may_migrate: bool) -> None:
    """Bring the tables up to date, or see that they are; raises Stop with what to do."""
    try:
        if may_migrate:
            await database.migrate()
        elif not await database.is_current():
            raise Stop("The database's tables are not of this version. Run server.py migrate, with the same settings.")
    except NewerTables as error:
        raise Stop(str(error)) from None
    except DatabaseUnavailable as error:
        raise Stop(f"The database can't be reached: {error}") from None


def spare_what_stays() -> None:
    """Have the collector leave alone what its rounds found to stay, as soon as one has taken LONG_ROUND_SECONDS.

    It stops the loop while it looks: for a tenth of a second, over all that a worker keeps where the desk is used. What
    stayed may be garbage later: one in so many times it is to look at everything.
    """
    begun, long_rounds = 0.0, itertools.count(1)

    def note(phase: str, about: dict[str, int]) -> None:
        nonlocal begun
        if about["generation"] < FULL_ROUND:
            return
        if phase == "start":
            begun = time.perf_counter()
        elif time.perf_counter() - begun > LONG_ROUND_SECONDS:
            (gc.freeze if next(long_rounds) % LONG_ROUNDS else gc.unfreeze)()

    gc.freeze()
    gc.callbacks.append(note)


async def serve(settings: Settings, listening: list[socket.socket], line: workers.Line | None = None) -> None:
    """Answer requests on `listening` until SIGTERM, SIGINT or the parent's end; finish those in flight."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if line is None:
        loop.add_signal_handler(
            signal.SIGHUP, log.warning, "one worker alone can't be rolled over: restart it, or set server.workers to 2"
        )
    parts = open_parts(settings)
    application = make_application(parts)
    server = Connections(application, settings.server)
    server.add_sockets([Listening(fileno=one.detach()) for one in listening])
    database, often = parts.database, settings.sessions.sweep_seconds
    chores = [
        parts.delivery,
        parts.jobs,
        Chore("activity", ACTIVITY_SECONDS, parts.activity.write),
        Chore("newest event", ACTIVITY_SECONDS, remembering(database, settings)),
        Chore("counts", FOLD_SECONDS, lambda: fold(database)),
        Chore("sweep", often, lambda: sweep(database, settings)),
        Chore("retention", often, forgetting(database, settings)),
    ]
    work = [*(chore.run() for chore in chores), parts.tail.run(), _beat(application)]
    running = [asyncio.create_task(one) for one in work]
    spare_what_stays()
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(stopping.wait())]
    if line:
        waits.append(asyncio.create_task(line.is_over()))
        line.say_ready()
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    server.drain()
    for stream in list(application.streams):
        stream.lose()
    give_up_at = loop.time() + settings.server.shutdown_seconds
    # Looked at again and again, once, at the end: an event for the last answer would cost each of them.
    is_asked = True
    while is_asked and loop.time() < give_up_at:
        await asyncio.sleep(0.01)
        is_asked = bool(application.running or application.tasks or server.is_awaiting())
    await server.close_all_connections()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await parts.delivery.finish(give_up_at - loop.time())
    application.settings["log_function"].flush()
    with contextlib.suppress(DatabaseUnavailable):
        await remembering(parts.database, settings)()
    await close_parts(parts)


async def repeat(write: Callable[P, Awaitable[Any]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Write again and again until nothing is left to do; others write in between."""
    while await write(*args, **kwargs):  # noqa: ASYNC110
        await asyncio.sleep(REST_SECONDS)


async def sweep(database: Database, settings: Settings) -> None:
    """End every session that has expired, some at a time, and forget old guesses."""
    await database.write(guesses.sweep, settings.guesses, clock.now())
    for kind in KINDS.values():
        await repeat(database.write, sessions.sweep, kind, clock.now())


def remembering(database: Database, settings: Settings) -> Callable[[], Awaitable[None]]:
    """What remembers the newest event, so that a database that is restored is known for what it is."""
    memory, is_told = restores.Memory(settings), False

    async def remember() -> None:
        nonlocal is_told
        # On a thread: where the disk is slow, or what SQLite syncs has to be written first, nobody waits for it.
        seen = await asyncio.to_thread(memory.read)
        newest = await database.read(restores.find_to_remember, seen, settings.events.since(clock.now()))
        try:
            await asyncio.to_thread(memory.keep, newest)
        except OSError as error:
            if not is_told:
                is_told = True
                log.warning("can't remember the newest event: a restore would go unnoticed", error=str(error))

    return remember


async def fold(database: Database) -> None:
    """Add what came to the counts, and sweep what a cut-off ended, some at a time."""

    def sweep_some(db: Connection, kind: Kind) -> int:
        swept = sessions.sweep_cut(db, kind, clock.now())
        if swept:
            # Added up by the commit that made it: one more would take as long again.
            counts.fold(db)
        return swept

    for kind in KINDS.values():
        await repeat(database.write, sweep_some, kind)
    await repeat(database.write, counts.fold)


def forgetting(database: Database, settings: Settings) -> Callable[[], Awaitable[None]]:
    """What deletes old events and jobs, and counts of nothing, and takes addresses that are kept no longer out of what
    stays."""
    retention = Retention()

    async def forget() -> None:
        if since := settings.events.since(clock.now()):
            await repeat(database.write, counts.forget_events, since, FORGET_MOST)
            await repeat(database.write, jobs.forget, since, FORGET_MOST)
        if settings.events.keep_addresses is not None:
            before = clock.now() - settings.events.keep_addresses
            for table in ADDRESSES:
                await repeat(retention.forget, database, table, before)
            # What was asked for may name an address too.
            await repeat(database.write, jobs.forget, before, FORGET_MOST)
        await database.write(counts.forget_empty)

    return forget


async def _beat(application: Application) -> None:
    """Cut the requests that take too long, and let each live stream show every so often that it is alive.

    Some streams each second, so that nobody waits for all.
    """
    for turn in itertools.count():
        await asyncio.sleep(1)
        application.cut()
        for number, stream in enumerate(list(application.streams)):
            if (number + turn) % BEAT_SECONDS == 0:
                stream.beat()


def bind(host: str, port: int, *, alone: bool = False) -> list[socket.socket]:
    """The sockets of one worker; raises Stop where the address is taken or is not ours."""
    try:
        return bind_sockets(port, host, reuse_port=not alone)
    except (OSError, UnicodeError, OverflowError) as error:
        raise Stop(f"Can't listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}") from None


def run(main: Awaitable[Any]) -> Any:
    """Run `main` to its end on a loop of its own."""

    async def awaited() -> Any:
        return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(awaited())


def configure_logging(settings: LogSettings) -> None:
    """Everything that is logged, ours and the libraries', goes to stderr, a line each."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    is_json = settings.format == "json"
    renderer: Any = structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=False)
    handler = logging.StreamHandler()
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for noisy in ("alembic", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A database that is away is told in a line of ours, not in the pool's traces.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        cache_logger_on_first_use=True,
    )


def _number(largest: int) -> Callable[[str], int]:
    """Reads a number from 0 on."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= largest:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {largest}, not {text!r}")

    return read


def make_parser() -> argparse.ArgumentParser:
    """The commands of `server.py` and what they take."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, default=settings_.DEFAULT_FILE, metavar="FILE", help="the settings (config.yaml)"
    )
    serving = argparse.ArgumentParser(add_help=False)
    serving.add_argument("--host", help="the address to listen on (server.host)")
    serving.add_argument(
        "--port", type=_number(LARGEST_PORT), help="the port to listen on, 0 for a free one (server.port)"
    )
    serving.add_argument(
        "--workers", type=_number(MOST_WORKERS), help="processes that answer, 0 for one a core (server.workers)"
    )
    serving.add_argument("--inherit", default="", help=argparse.SUPPRESS)
    account = argparse.ArgumentParser(add_help=False)
    account.add_argument("--phone", help="in international form, +79137779135")
    for name in ("surname", "name", "patronymic", "address"):
        account.add_argument(f"--{name}", default="")
    account.add_argument(
        "--password-stdin", action="store_true", help="read the password from the first line of standard input"
    )
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="Sessions: where am I signed in, and how do I end it?",
        epilog="Every setting is in config.yaml; SESSIONS_<SECTION>__<NAME> in the environment overrides it.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("serve", parents=[common, serving], help="answer requests (what happens without a command)")
    commands.add_parser(
        "demo", parents=[common, serving], help="the same on a scratch database with some 300 accounts, to try it"
    )
    user = commands.add_parser(
        "add-user",
        parents=[common, account],
        help="make a user",
        description="Make a user, confirmed. Asks for the password; where it can't ask, it makes one and prints it.",
    )
    user.add_argument("--email")
    user.add_argument("--staff", action="store_true", help="may see and end every session")
    user.add_argument("--viewer", action="store_true", help="may see every session and end only their own")
    commands.add_parser(
        "add-client",
        parents=[common, account],
        help="make a client",
        description="Make a client, confirmed. Asks for the password; where it can't ask, it makes one and prints it.",
    )
    issue = commands.add_parser(
        "issue-token",
        parents=[common],
        help="start a session for an account and print its tokens",
        description="Start a session for an account, without its password, and print its tokens as JSON.",
    )
    whose = issue.add_mutually_exclusive_group(required=True)
    for kind in KINDS:
        whose.add_argument(f"--{kind}", type=int, metavar="ID", help=f"the {kind}'s id")
    issue.add_argument("--device", default="issue-token", help="the device that the session is shown with")
    restored = commands.add_parser(
        "restored",
        parents=[common],
        help="after a back-up was restored: end the sessions that it holds, or keep them",
        description="A back-up holds sessions that were ended after it was made. Say what becomes of all it holds.",
    )
    decision = restored.add_mutually_exclusive_group(required=True)
    decision.add_argument("--end-all", action="store_true", help="end every session: everybody signs in again")
    decision.add_argument("--keep", action="store_true", help="they are right as they are")
    commands.add_parser("migrate", parents=[common], help="bring the database's tables to this version")
    return parser


def command_serve(settings: Settings, options: argparse.Namespace, prepare: Callable[[str], None] | None = None) -> int:
    """Answer requests, in this process or in several that this one watches; `prepare` is told where, before."""
    if options.inherit:
        return work(settings, [int(number) for number in options.inherit.split(",")])
    host = options.host or settings.server.host
    port = settings.server.port if options.port is None else options.port
    count = (settings.server.workers if options.workers is None else options.workers) or os.cpu_count() or 1
    # Shared ports let a second server slip in unnoticed: ask for the port alone, once.
    for probe in bind(host, port, alone=True):
        probe.close()
    slots = [bind(host, port)]
    port = slots[0][0].getsockname()[1]
    slots += [bind(host, port) for _ in range(count - 1)]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if prepare:
        prepare(address)
    run(greet(settings, address, options.config))
    if count == 1:
        run(serve(settings, slots[0]))
        return 0
    again = [sys.executable, str(Path(__file__).resolve()), "serve", "--config", str(options.config)]
    # In memory where there is such a place: writing to a mapped file on a full disk kills whoever does (SIGBUS).
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="sessions-metrics-", dir=memory) as folder:
        # Each worker counts in a file there; whichever is asked adds them up.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        code: int = run(workers.watch(again, slots))
    return code


def work(settings: Settings, numbers: list[int]) -> int:
    """Answer requests as one of several workers, on what the parent handed over."""
    line = workers.Line(numbers[0])
    run(serve(settings, [socket.socket(fileno=number) for number in numbers[1:]], line))
    return 0


async def greet(settings: Settings, address: str, config: Path) -> None:
    """Prepare the database, and say where the server is and, on the first start, how to begin."""
    site = settings.server.address or address
    key_set, database = keys.load(settings.tokens), open_database(settings)
    try:
        await prepare_database(database, may_migrate=isinstance(database, SQLiteDatabase))
        is_empty = await database.read(accounts.is_empty)
        seen = restores.Memory(settings).read()
        is_restored = await database.read(restores.is_restored, seen, settings.events.since(clock.now()))
    finally:
        await database.close()
    print(f"Sessions answers on {address}/" + ("" if site == address else f", as {site}/"), flush=True)
    print(f"  to try each call:  {site}/docs/", flush=True)
    if is_restored:
        since = f"{seen.at:%Y-%m-%d %H:%M:%S} UTC" if seen else ""
        log.warning("the database was restored from a back-up: sessions that were ended since are live in it")
        print(f"  The database is older than what was seen here last ({since}): it was restored from a back-up.")
        print("  Sessions that were ended since the back-up was made are accepted again. To end all that it holds:")
        print(f"    {tell_command(config, 'restored', '--end-all')}", flush=True)
        print("  Or, where they are right as they are, and to be told no more:")
        print(f"    {tell_command(config, 'restored', '--keep')}", flush=True)
    if is_empty:
        code = key_set.fingerprint("setup", "")[:32]
        print(f"  the first account: {site}/setup/{code}/", flush=True)
        print(f"  or from here:      {tell_command(config, *ADD_STAFF)}", flush=True)


def tell_command(config: Path, *words: str) -> str:
    """What a person types for another command of this program, with the same Python and settings."""
    python = os.path.relpath(sys.executable)
    used = [] if config == settings_.DEFAULT_FILE else ["--config", str(config)]
    return shlex.join([sys.executable if python.startswith(os.pardir) else python, sys.argv[0], *words, *used])


def command_demo(settings: Settings, options: argparse.Namespace) -> int:
    """Fill a scratch database, say how to sign in, answer requests."""
    with tempfile.TemporaryDirectory(prefix="sessions-demo-") as folder:
        os.environ["SESSIONS_DATABASE__URL"] = f"sqlite:///{folder}/demo.sqlite3"
        # Nobody is written to: codes go to the log.
        os.environ["SESSIONS_MAIL__HOST"] = os.environ["SESSIONS_SMS__ADDRESS"] = ""
        os.environ["SESSIONS_TOKENS__KEY_FILE"] = f"{folder}/signing.key"
        settings = settings_.load(options.config)

        def prepare(address: str) -> None:
            print("Making some 300 accounts with their devices and history …", flush=True)
            print(run(fill_demo(settings, settings.server.address or address)), flush=True)

        return command_serve(settings, options, prepare)


async def fill_demo(settings: Settings, site: str) -> str:
    """Fill the empty database with the demo's rows; how to sign in at `site`."""
    # Of no use to a server that is not a demo.
    from models import demo

    parts = open_parts(settings)
    try:
        await prepare_database(parts.database, may_migrate=True)
        return await demo.fill(parts.database, parts.passwords, parts.places, site)
    except WeakPassword as error:
        raise Stop(str(error)) from None
    finally:
        await close_parts(parts)


def command_add(settings: Settings, options: argparse.Namespace) -> int:
    """Make an account of either kind."""
    kind = KINDS[options.command.removeprefix("add-")]
    fields = {name: getattr(options, name) for name in ("surname", "name", "patronymic", "address")}
    given = {contact: getattr(options, contact) for contact in kind.contacts}
    if not any(given.values()):
        raise Stop("Give " + " or ".join(f"--{contact}" for contact in kind.contacts) + ".")
    try:
        contacts: dict[str, Any] = {
            contact: normalise(contact, typed, settings.accounts.country) if typed else None
            for contact, typed in given.items()
        }
    except ValueError as error:
        raise Stop(str(error)) from None
    roles = {f"is_{role}": True for role in ("staff", "viewer") if getattr(options, role, False)}
    password, is_made = read_password(options)
    file = find_file(settings)
    is_first = file is not None and not file.exists()
    account_id, has_staff = run(add(settings, kind, {**fields, **contacts, **roles}, password))
    print(f"{kind.name} {account_id} made" + (f", with the password {password}" if is_made else ""))
    if is_first:
        print(f"in a database that is new: {file}")
    if not has_staff:
        print(f"Nobody is staff yet: {tell_command(options.config, *ADD_STAFF)}")
    return 0


def read_password(options: argparse.Namespace) -> tuple[str, bool]:
    """The password for a new account, and whether it was made here."""
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\r\n"), False
    if not sys.stdin.isatty():
        return secrets.token_urlsafe(12), True
    password = getpass.getpass("Password (empty: make one): ")
    if password and password != getpass.getpass("The same again: "):
        raise Stop("The two are not the same.")
    return password or secrets.token_urlsafe(12), not password


async def add(settings: Settings, kind: Kind, fields: dict[str, Any], password: str) -> tuple[int, bool]:
    """Make a confirmed account; its id, and whether anybody is staff."""
    passwords, database = Passwords(settings.accounts.password_length), open_database(settings)
    try:
        await prepare_database(database, may_migrate=isinstance(database, SQLiteDatabase))
        password_hash = await passwords.hash(password, *accounts.personal_words(kind, fields))
        now = clock.now()
        made = {**fields, "confirmed_by_staff_at": now}
        row = await database.write(accounts.create, kind, made, password_hash, None, now)
        return row["id"], await database.read(accounts.has_staff)
    except WeakPassword as error:
        raise Stop(str(error)) from None
    except accounts.ContactTaken as taken:
        raise Stop(f"Another {kind.name} has this {taken.contact}.") from None
    finally:
        await database.close()
        passwords.close()


def command_issue_token(settings: Settings, options: argparse.Namespace) -> int:
    """Start a session for an account and print its tokens."""
    require_database(settings)
    kind = next(kind for name, kind in KINDS.items() if getattr(options, name) is not None)
    print(json.dumps(run(issue(settings, kind, getattr(options, kind.name), options.device)), indent=2))
    return 0


async def issue(settings: Settings, kind: Kind, account_id: int, device: str) -> dict[str, Any]:
    """The tokens of a new session."""
    parts = open_parts(settings)
    try:
        await prepare_database(parts.database, may_migrate=isinstance(parts.database, SQLiteDatabase))
        origin = make_origin("", device, parts.places).described()
        started = None
        if 0 < account_id <= LARGEST_ID:
            started = await parts.database.write(
                sessions.start, kind, account_id, None, None, origin, settings.sessions, clock.now()
            )
        if started is None:
            raise Stop(f"There is no {kind.name} {account_id}, or it is disabled.")
        return shape_tokens(parts.tokens, started)
    finally:
        await close_parts(parts)


def command_migrate(settings: Settings, options: argparse.Namespace) -> int:
    """Bring the database's tables to this version."""
    run(migrate(settings))
    print("The database's tables are of this version.")
    return 0


def command_restored(settings: Settings, options: argparse.Namespace) -> int:
    """Say what becomes of the sessions of a database that was restored."""
    require_database(settings)
    ended = run(decide_restored(settings, is_ending=options.end_all))
    print(f"{ended} sessions ended: everybody signs in again." if options.end_all else "The sessions are kept.")
    return 0


async def decide_restored(settings: Settings, *, is_ending: bool) -> int:
    """End every session or none, and remember the database as it is; how many were ended."""
    database, ended = open_database(settings), 0
    try:
        await prepare_database(database, may_migrate=isinstance(database, SQLiteDatabase))
        while is_ending and (some := await database.write(restores.end_some, clock.now())):
            ended += some
        restores.Memory(settings).keep(await database.read(restores.find_newest))
    except OSError as error:
        raise Stop(f"What was seen can't be remembered: {error}") from None
    finally:
        await database.close()
    return ended


async def migrate(settings: Settings) -> None:
    """Run the migrations that the database lacks."""
    database = open_database(settings)
    try:
        await prepare_database(database, may_migrate=True)
    finally:
        await database.close()


COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "serve": command_serve,
    "demo": command_demo,
    "add-user": command_add,
    "add-client": command_add,
    "issue-token": command_issue_token,
    "migrate": command_migrate,
    "restored": command_restored,
}


def main(arguments: list[str]) -> int:
    """Run a command; the exit code: 0, 1 where it could not be done, 2 where it was asked wrongly, 130 where it was
    stopped before it was done."""
    # Until there is something in flight to finish, a stop is as from the keyboard; whoever starts a program behind his
    # back has it ignore that, and Python would too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["serve", *arguments]
    options = make_parser().parse_args(arguments)
    try:
        settings = settings_.load(options.config)
        configure_logging(settings.log)
        return COMMANDS[options.command](settings, options)
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        return 2
    except (Stop, DatabaseUnavailable) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if options.command in ("serve", "demo") else 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
