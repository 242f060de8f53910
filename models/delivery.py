"""Sends what is queued: mail over SMTP, SMS over an HTTP gateway; to the log where none is configured."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import cache

import structlog

from models import clock, messages
from models.chores import Chore
from models.database import Database, DatabaseUnavailable
from models.keys import KeySet
from models.messages import Letter, Taken
from models.settings import MailSettings, SmsSettings

MOST_AT_ONCE = 20
# For a letter in all; the lease on it is longer, so that nobody else sends it meanwhile.
TIMEOUT_SECONDS = 60
LOOK_SECONDS = 5

log = structlog.get_logger("delivery")


class Delivery(Chore):
    """Takes letters from the queue and sends each; one that fails is tried again later."""

    def __init__(self, database: Database, keys: KeySet, mail: MailSettings, sms: SmsSettings) -> None:
        self._database = database
        self._keys = keys
        self._mail = mail
        self._sms = sms
        self._loading = asyncio.Lock()
        self._sending: asyncio.Future[list[None]] | None = None
        super().__init__("messages", LOOK_SECONDS, self._send_all)

    async def _send_all(self) -> None:
        while await self.send_due() == MOST_AT_ONCE:
            pass

    async def send_due(self) -> int:
        """Send the letters that are due now; how many were taken."""
        taken = await self._database.write(messages.take, self._keys, clock.now(), MOST_AT_ONCE)
        self._sending = asyncio.gather(*(self._send(one) for one in taken))
        await asyncio.shield(self._sending)
        return len(taken)

    async def finish(self, seconds: float) -> None:
        """Wait so long for the letters that are on their way: one that is cut off is sent again, and may come twice."""
        if self._sending:
            with contextlib.suppress(TimeoutError, DatabaseUnavailable):
                await asyncio.wait_for(self._sending, seconds)

    async def _send(self, taken: Taken) -> None:
        if taken.letter is None:
            # Another worker or server may have that key: while they are given a new one, each has it in its turn.
            is_kept = await self._database.write(messages.retry, taken, clock.now())
            log.error("no key of the key set opens a message", message=taken.id, will_try_again=is_kept)
            return
        channel = taken.letter.channel
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await (self._send_mail if channel == "mail" else self._send_sms)(taken.letter)
        except Exception as error:
            # Whatever it is, the other letters go on. Its text may quote the letter or the gateway's secret; its
            # type can't.
            is_kept = await self._database.write(messages.retry, taken, clock.now())
            log.warning(
                "message not sent, will try again" if is_kept else "message given up",
                channel=channel,
                message=taken.id,
                attempt=taken.attempts,
                error=type(error).__name__,
            )
            return
        await self._database.write(messages.finish, taken.id)

    async def _send_mail(self, letter: Letter) -> None:
        if not self._mail.host:
            _write_to_log(letter, "mail.host")
            return
        tls = await self._load(load_for_mail)
        import aiosmtplib

        message = EmailMessage()
        message["From"] = self._mail.sender
        message["To"] = letter.recipient
        message["Subject"] = letter.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._mail.sender.rpartition("@")[2].rstrip("> ") or None)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        await aiosmtplib.send(
            message,
            hostname=self._mail.host,
            port=self._mail.port,
            username=self._mail.username or None,
            password=self._mail.password.get_secret_value() or None,
            use_tls=self._mail.security == "tls",
            start_tls=self._mail.security == "starttls",
            tls_context=tls,
            timeout=TIMEOUT_SECONDS,
        )

    async def _send_sms(self, letter: Letter) -> None:
        if not self._sms.address:
            _write_to_log(letter, "sms.address")
            return
        tls = await self._load(load_for_sms)
        import httpx

        # One pass over each field: a text that itself says "{phone}" stays as it is.
        values = {"{phone}": letter.recipient, "{text}": letter.text}
        body = {name: _fill(template, values) for name, template in self._sms.body.items()}
        name, _, value = self._sms.header.get_secret_value().partition(":")
        headers = {name.strip(): value.strip()} if name else {}
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, headers=headers, verify=tls) as client:
            if self._sms.format == "json":
                response = await client.post(self._sms.address, json=body)
            else:
                response = await client.post(self._sms.address, data=body)
        response.raise_for_status()

    async def _load(self, load: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """What `load` gives, which the first who asks waits for, and the loop does not."""
        async with self._loading:
            return await asyncio.to_thread(load)


# Each takes as long as some hundred requests, and may never be needed.


@cache
def load_for_mail() -> ssl.SSLContext:
    """Whose certificates mail servers are known by; with it aiosmtplib is imported."""
    import aiosmtplib  # noqa: F401

    return ssl.create_default_context()


@cache
def load_for_sms() -> ssl.SSLContext:
    """Whose certificates gateways are known by; with it httpx is imported."""
    import httpx

    return httpx.create_ssl_context()


def _fill(template: str, values: dict[str, str]) -> str:
    parts = template.split("{phone}")
    return values["{phone}"].join(part.replace("{text}", values["{text}"]) for part in parts)


def _write_to_log(letter: Letter, setting: str) -> None:
    log.warning(
        "NOT SENT, as no way to send it is configured; here it is",
        channel=letter.channel,
        setting=setting,
        recipient=letter.recipient,
        subject=letter.subject,
        text=letter.text,
    )
