"""Mail and SMS: sent by a real SMTP server and a real gateway, once, however often it has to be tried."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from pydantic import SecretStr
from sqlalchemy import Connection, delete, select, update
from structlog.testing import capture_logs
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from models import clock, delivery, messages
from models.delivery import Delivery
from models.keys import Key, KeySet
from models.messages import GIVE_UP_AFTER, Channel, Letter
from models.schema import MESSAGES
from models.settings import MailSettings, SmsSettings
from tests.conftest import PASSWORD, open_database, open_loop, start_server, wait_until
from tests.postgres import free_port

KEYS = KeySet([Key("one", b"1" * 64, "HS256")])
MAIL = Letter("mail", "user3@example.com", "the subject", "Your code is QUIETHARBOUR.\nЗдравствуйте, {phone}.")
SMS = Letter("sms", "+79137779135", "the subject", "Your code is QUIETHARBOUR. {phone} {text}")
SECRET = "gateway-secret-4711"


class Mailbox:
    """What a real SMTP server received, and how it receives."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.refusal: str | None = None
        self.is_hanging = False
        self.step_seconds = 0.0
        self.port = 0
        self.has_mail = asyncio.Event()

    @property
    def recipients(self) -> Counter[str]:
        return Counter(address for envelope in self.envelopes for address in envelope.rcpt_tos)

    async def handle_MAIL(self, _server: Any, _session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.step_seconds)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.step_seconds)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.refusal:
            return self.refusal
        self.envelopes.append(envelope)
        self.has_mail.set()
        await asyncio.sleep(self.step_seconds)
        return "250 OK"


class Gateway:
    """What a real HTTP gateway received, and what it answers."""

    def __init__(self) -> None:
        self.requests: list[HTTPServerRequest] = []
        self.status = "200 OK"
        self.address = ""

    def __call__(self, request: HTTPServerRequest) -> None:
        self.requests.append(request)
        number, _, reason = self.status.partition(" ")
        headers = HTTPHeaders({"Content-Length": "0", "Connection": "close", "Location": "/elsewhere"})
        assert request.connection
        request.connection.write_headers(ResponseStartLine("HTTP/1.1", int(number), reason), headers)
        request.connection.finish()


class Post:
    """A queue on each database, with a mail server and a gateway of its own to send by."""

    def __init__(self, url: str, run: Callable[[Any], Any]) -> None:
        self.url = url
        self.run = run
        self.database = open_database(url)
        self.mailbox = Mailbox()
        self.gateway = Gateway()

    async def open(self) -> None:
        await self.database.write(lambda db: db.execute(delete(MESSAGES)))
        loop = asyncio.get_running_loop()
        self._connections: list[SMTP] = []

        def receive() -> SMTP:
            connection = SMTP(self.mailbox, hostname="localhost", enable_SMTPUTF8=True, loop=loop)
            self._connections.append(connection)
            return connection

        self._smtp = await loop.create_server(receive, "127.0.0.1", 0)
        self.mailbox.port = self._smtp.sockets[0].getsockname()[1]
        self._http = HTTPServer(self.gateway)
        self._http.listen(0, "127.0.0.1")
        (listening,) = self._http._sockets.values()
        self.gateway.address = f"http://127.0.0.1:{listening.getsockname()[1]}/send"

    async def close(self) -> None:
        self._smtp.close()
        for connection in self._connections:
            if connection.transport:
                connection.transport.close()
        self._http.stop()
        await self._http.close_all_connections()
        await self.database.close()

    def deliver(self, mail: dict[str, Any] | None = None, sms: dict[str, Any] | None = None) -> Delivery:
        """Delivery by the servers of this test, with other settings than usual where some are given."""
        mail_settings = {"host": "127.0.0.1", "port": self.mailbox.port, "security": "none"} | (mail or {})
        sms_settings = {"address": self.gateway.address, "header": f"Authorization: Bearer {SECRET}"} | (sms or {})
        return Delivery(self.database, KEYS, MailSettings(**mail_settings), SmsSettings(**sms_settings))

    async def queue(self, *letters: Letter, keys: KeySet = KEYS) -> None:
        for letter in letters:
            await self.database.write(messages.queue, keys, letter, clock.now())

    async def waiting(self) -> Any:
        """The rows of what was not sent yet."""

        def read(db: Connection) -> Any:
            return db.execute(select(MESSAGES).order_by(MESSAGES.c.id)).mappings().all()

        return await self.database.read(read)

    async def make_due(self, **changes: Any) -> None:
        """Have what waits be due, as if its time had come."""
        past = clock.now() - timedelta(seconds=1)
        await self.database.write(lambda db: db.execute(update(MESSAGES).values({"due_at": past} | changes)))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> str:
    return make_url(request.param)


@pytest.fixture
def post(url: str) -> Iterator[Post]:
    with open_loop() as run:
        made = Post(url, run)
        run(made.open())
        yield made
        run(made.close())


def with_post(test: Callable[[Post], Awaitable[None]]) -> Callable[[Post], None]:
    """The coroutine `test` on the loop of its post."""

    def run(post: Post) -> None:
        post.run(test(post))

    run.__name__ = test.__name__
    return run


@with_post
async def test_a_mail_arrives_as_it_was_written_and_is_forgotten(post: Post) -> None:
    await post.queue(MAIL)
    assert await post.deliver().send_due() == 1
    (envelope,) = post.mailbox.envelopes
    assert envelope.mail_from == "sessions@localhost"
    assert envelope.rcpt_tos == [MAIL.recipient]
    mail = message_from_bytes(envelope.content, policy=default)
    assert (mail["To"], mail["Subject"]) == (MAIL.recipient, MAIL.subject)
    assert mail["From"] == "Sessions <sessions@localhost>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"]
    assert mail["Message-ID"].endswith("@localhost>")
    assert mail.get_content().replace("\r\n", "\n").strip() == MAIL.text
    assert not await post.waiting()
    assert await post.deliver().send_due() == 0


@with_post
async def test_an_sms_is_posted_as_json_with_the_gateways_header(post: Post) -> None:
    await post.queue(SMS)
    await post.deliver(sms={"body": {"to": "{phone}", "text": "<{text}>", "from": "Sessions"}}).send_due()
    (request,) = post.gateway.requests
    assert (request.method, request.path) == ("POST", "/send")
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"to": SMS.recipient, "text": f"<{SMS.text}>", "from": "Sessions"}
    assert not await post.waiting()


@with_post
async def test_who_is_trusted_is_read_once_and_not_by_the_loop(post: Post) -> None:
    loop = threading.get_ident()
    delivery.load_for_sms.cache_clear()
    readers: list[int] = []
    read_certificates = httpx.create_ssl_context

    def read() -> ssl.SSLContext:
        readers.append(threading.get_ident())
        return read_certificates()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", read)
        await post.queue(*[SMS] * 3)
        assert await post.deliver().send_due() == 3
        await post.queue(SMS)
        assert await post.deliver().send_due() == 1
    assert len(post.gateway.requests) == 4
    assert len(readers) == 1
    assert readers[0] != loop


@with_post
async def test_an_sms_is_posted_as_a_form_where_the_gateway_wants_one(post: Post) -> None:
    await post.queue(SMS)
    await post.deliver(sms={"format": "form"}).send_due()
    (request,) = post.gateway.requests
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {"to": [SMS.recipient], "text": [SMS.text]}
    assert not await post.waiting()


@with_post
async def test_where_nothing_is_configured_the_log_says_so_and_has_the_text(post: Post) -> None:
    await post.queue(MAIL, SMS)
    with capture_logs() as logs:
        await post.deliver({"host": ""}, {"address": ""}).send_due()
    assert [entry["event"].partition(",")[0] for entry in logs] == ["NOT SENT", "NOT SENT"]
    told = {entry["channel"]: (entry["setting"], entry["recipient"], entry["text"]) for entry in logs}
    assert told["mail"] == ("mail.host", MAIL.recipient, MAIL.text)
    assert told["sms"] == ("sms.address", SMS.recipient, SMS.text)
    assert not post.mailbox.envelopes
    assert not post.gateway.requests
    assert not await post.waiting()


@with_post
async def test_a_letter_is_read_from_the_database_by_the_key_set_alone(post: Post) -> None:
    await post.queue(MAIL, SMS)
    kept = repr(await post.waiting())
    if post.url.startswith("sqlite"):
        files = Path(post.url.removeprefix("sqlite:///")).parent.glob("*")
        kept += repr([file.read_bytes() for file in files])
    assert MAIL.recipient in kept
    assert "QUIETHARBOUR" not in kept
    assert "Your code" not in kept


@with_post
async def test_a_letter_that_no_key_opens_waits_for_whoever_has_it_and_the_log_says_so(post: Post) -> None:
    await post.queue(MAIL, keys=KeySet([Key("gone", b"g" * 64, "HS256")]))
    with capture_logs() as logs:
        await post.deliver().send_due()
    assert [entry["event"] for entry in logs] == ["no key of the key set opens a message"]
    assert len(await post.waiting()) == 1


@with_post
async def test_a_letter_that_is_on_its_way_at_a_stop_is_not_sent_again(post: Post) -> None:
    sender = post.deliver()
    post.mailbox.step_seconds = 0.2
    await post.queue(MAIL)
    working = asyncio.create_task(sender.run())
    sender.wake()
    await post.mailbox.has_mail.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    # The mail server has it, and has not said so yet.
    assert await post.waiting()

    await sender.finish(20)

    assert not await post.waiting()
    assert post.mailbox.recipients == Counter([MAIL.recipient])


@with_post
async def test_what_the_mail_server_refuses_is_tried_again_later_and_later(post: Post) -> None:
    sender = post.deliver()
    post.mailbox.refusal = "451 try again"
    await post.queue(MAIL)
    for attempt in range(1, 5):
        before = clock.now()
        assert await sender.send_due() == 1
        (row,) = await post.waiting()
        assert row["attempts"] == attempt
        wait = messages.WAIT * 2 ** (attempt - 1)
        assert before + wait <= row["due_at"] <= clock.now() + wait
        assert await sender.send_due() == 0
        await post.make_due()
    post.mailbox.refusal = None
    assert await sender.send_due() == 1
    assert len(post.mailbox.envelopes) == 1
    assert not await post.waiting()


@with_post
async def test_the_wait_is_an_hour_at_most_and_after_a_day_a_letter_is_given_up(post: Post) -> None:
    sender = post.deliver()
    post.mailbox.refusal = "550 no"
    await post.queue(MAIL)
    await post.make_due(attempts=30)
    await sender.send_due()
    (row,) = await post.waiting()
    assert timedelta(minutes=59) < row["due_at"] - clock.now() <= messages.LONGEST_WAIT
    await post.make_due(created_at=clock.now() - GIVE_UP_AFTER - timedelta(minutes=1))
    with capture_logs() as logs:
        await sender.send_due()
    assert [entry["event"] for entry in logs] == ["message given up"]
    assert not await post.waiting()


@with_post
async def test_a_mail_server_that_is_away_or_hangs_keeps_the_letter_waiting(post: Post) -> None:
    usual, delivery.TIMEOUT_SECONDS = delivery.TIMEOUT_SECONDS, 0.2  # type: ignore[assignment]
    try:
        await post.queue(MAIL)
        await post.deliver({"port": free_port()}).send_due()
        await post.make_due()
        post.mailbox.is_hanging = True
        await post.deliver().send_due()
        (row,) = await post.waiting()
        assert row["attempts"] == 2
        post.mailbox.is_hanging = False
        await post.make_due()
    finally:
        delivery.TIMEOUT_SECONDS = usual
    await post.deliver().send_due()
    assert len(post.mailbox.envelopes) == 1


@with_post
async def test_an_sms_that_the_gateway_does_not_take_is_tried_again(post: Post) -> None:
    refusals = ["302 Found", "400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "500 Oh", "503 Away"]
    await post.queue(SMS)
    for post.gateway.status in refusals:
        await post.deliver().send_due()
        assert len(await post.waiting()) == 1
        await post.make_due()
    post.gateway.status = "204 No Content"
    await post.deliver().send_due()
    assert not await post.waiting()
    assert len(post.gateway.requests) == len(refusals) + 1


@with_post
async def test_no_failure_writes_a_letter_or_a_secret_to_the_log(post: Post) -> None:
    post.mailbox.refusal = f"550 spam: {MAIL.text.splitlines()[0]}"
    post.gateway.status = "401 Unauthorized"
    login = {"username": "sessions", "password": SecretStr(SECRET)}
    await post.queue(MAIL, SMS)
    with capture_logs() as logs:
        for mail, sms in (
            ({}, {}),
            (login, {"address": f"http://127.0.0.1:{free_port()}/?key={SECRET}"}),
            ({"port": free_port()}, {"header": f"Authorization: {SECRET}", "address": "http://["}),
            ({"security": "tls"}, {}),
            ({"security": "starttls"}, {}),
        ):
            await post.deliver(mail, sms).send_due()
            await post.make_due()
    assert len(logs) == 10
    told = repr(logs)
    for secret in (SECRET, "QUIETHARBOUR", MAIL.recipient, SMS.recipient):
        assert secret not in told


@pytest.mark.parametrize(
    ("mail", "sms"),
    [
        ({"sender": "Sessions <sessions@é.example>"}, {}),
        ({"port": 1}, {}),
        ({}, {"address": "http://["}),
        ({}, {"address": "http://127.0.0.1:99999999/"}),
    ],
    ids=repr,
)
def test_settings_that_nothing_can_be_sent_with_stop_no_other_letter(
    post: Post, mail: dict[str, Any], sms: dict[str, Any]
) -> None:
    async def check() -> None:
        await post.queue(MAIL, SMS)
        assert await post.deliver(mail, sms).send_due() == 2
        waiting = await post.waiting()
        assert {row["channel"] for row in waiting} <= ({"mail"} if mail else {"sms"})

    post.run(check())


@with_post
async def test_two_workers_never_send_a_letter_twice(post: Post) -> None:
    other = Post(post.url, post.run)
    other.mailbox, other.gateway = post.mailbox, post.gateway
    letters = [Letter("mail", f"user{number}@example.com", "subject", "text") for number in range(60)]
    await post.queue(*letters)

    async def send_all(sender: Delivery) -> int:
        count = 0
        while taken := await sender.send_due():
            count += taken
        return count

    counts = await asyncio.gather(*(send_all(each.deliver()) for each in (post, other, post, other)))
    await other.database.close()
    assert sum(counts) == 60
    assert post.mailbox.recipients == Counter({letter.recipient: 1 for letter in letters})
    assert not await post.waiting()


@with_post
async def test_a_mail_server_that_is_slow_in_each_step_gets_no_letter_twice(post: Post) -> None:
    # The real times made small: each step stays below its limit, all together outlast the lease.
    usual = messages.LEASE, delivery.TIMEOUT_SECONDS
    messages.LEASE, delivery.TIMEOUT_SECONDS = timedelta(seconds=0.6), 0.25  # type: ignore[assignment]
    post.mailbox.step_seconds = 0.22
    until = asyncio.get_running_loop().time() + 0.65

    async def work(sender: Delivery) -> None:
        while asyncio.get_running_loop().time() < until:
            await sender.send_due()
            await asyncio.sleep(0.01)

    try:
        await post.queue(MAIL)
        await asyncio.gather(work(post.deliver()), work(post.deliver()))
    finally:
        messages.LEASE, delivery.TIMEOUT_SECONDS = usual
    assert len(post.mailbox.envelopes) <= 1


@with_post
async def test_a_letter_whose_worker_died_is_sent_by_another_once_the_lease_is_over(post: Post) -> None:
    await post.queue(MAIL)
    await post.database.write(messages.take, KEYS, clock.now(), 20)
    assert await post.deliver().send_due() == 0
    (row,) = await post.waiting()
    assert timedelta(0) < row["due_at"] - clock.now() <= messages.LEASE
    await post.make_due()
    assert await post.deliver().send_due() == 1
    assert len(post.mailbox.envelopes) == 1


@with_post
async def test_a_letter_from_before_the_clock_was_set_back_does_not_wait_for_it(post: Post) -> None:
    async def wait_until(at: datetime) -> None:
        await post.database.write(lambda db: db.execute(update(MESSAGES).values(due_at=at)))

    await post.queue(MAIL)
    # Another server's clock may be a little ahead.
    await wait_until(clock.now() + messages.LONGEST_WAIT + clock.SKEW / 2)
    assert await post.deliver().send_due() == 0
    await wait_until(clock.now() + timedelta(days=1))
    assert await post.deliver().send_due() == 1
    assert await post.deliver().send_due() == 0
    assert len(post.mailbox.envelopes) == 1


@with_post
async def test_a_queued_letter_is_sent_without_waiting_for_the_next_look(post: Post) -> None:
    sender = post.deliver()
    running = asyncio.create_task(sender.run())
    loop = asyncio.get_running_loop()
    started = loop.time()
    await post.queue(MAIL)
    sender.wake()
    await post.mailbox.has_mail.wait()
    assert loop.time() - started < delivery.LOOK_SECONDS / 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("channel", ["mail", "sms"])
def test_what_is_queued_by_a_transaction_that_fails_is_never_sent(post: Post, channel: Channel) -> None:
    async def check() -> None:
        def fail(db: Connection) -> None:
            messages.queue(db, KEYS, Letter(channel, "nobody", "", ""), clock.now())
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await post.database.write(fail)
        assert await post.deliver().send_due() == 0

    post.run(check())


@pytest.mark.long
def test_mail_survives_the_servers_death(tmp_path: Path) -> None:
    mailbox, port = Mailbox(), free_port()
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    mail = {"SESSIONS_MAIL__HOST": "127.0.0.1", "SESSIONS_MAIL__PORT": str(port), "SESSIONS_MAIL__SECURITY": "none"}

    def register(address: str, email: str) -> None:
        body = json.dumps({"email": email, "password": PASSWORD})
        sent = ["curl", "-sf", "-H", "Content-Type: application/json", "-d", body, f"{address}/auth/user/register/"]
        subprocess.run(sent, check=True, capture_output=True)

    server = start_server(tmp_path, url, **mail)
    register(server.address, "before@example.com")
    wait_until(lambda: "will try again" in server.log.read_text())
    server.process.kill()
    server.process.wait(10)
    database = open_database(url)
    past = clock.now() - timedelta(seconds=1)
    with open_loop() as run:
        run(database.write(lambda db: db.execute(update(MESSAGES).values(due_at=past))))
        run(database.close())
    receiving = Controller(mailbox, hostname="127.0.0.1", port=port)
    receiving.start()
    try:
        server = start_server(tmp_path, url, **mail)
        register(server.address, "after@example.com")
        wait_until(lambda: sum(mailbox.recipients.values()) >= 2)
        assert server.stop() == 0
    finally:
        receiving.stop()
    assert mailbox.recipients == Counter({"before@example.com": 1, "after@example.com": 1})
