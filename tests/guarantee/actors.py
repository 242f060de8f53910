"""Those who use the servers: many at once, each act written down as it was sent and answered."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from time import monotonic
from typing import Any

import orjson

from models import clock
from models.keys import Key, KeySet
from models.schema import KINDS
from models.sessions import GRACE
from models.tokens import Tokens
from tests.guarantee.history import Account, Call, History, Session, Stream
from tests.guarantee.judge import CLOSE_SECONDS
from tests.guarantee.servers import SECRET, Server
from tests.guarantee.wire import Answer, Broken, Connection, NoAnswer

MOST_STREAMS = 40
# So long after its first use a refresh token surely is good still, and surely is taken for stolen.
SOON_SECONDS = GRACE.total_seconds() - 10
LATE_SECONDS = GRACE.total_seconds() + 5
# What is asked of a session whose end was just answered.
HUNTED = ("list", "live", "refresh", "detail", "rename", "page")
# As the servers sign.
TOKENS = Tokens(KeySet([Key("checker", SECRET.encode(), "HS256")]), 86_400, timedelta(days=1))

ACTS = {
    "list": 26,
    "detail": 6,
    "page": 4,
    "live": 8,
    "refresh": 6,
    "refresh twice": 5,
    "replay": 0.4,
    "rename": 7,
    "end": 7,
    "sign out": 4,
    "end a gone one": 1,
    "end at once": 3,
    "others": 1.2,
    "staff list": 2,
    "staff end": 4,
    "disable": 0.8,
    "password": 0.4,
    "start": 7,
    "start at once": 1,
}


class Actors:
    """They act on accounts of their own until they are stopped."""

    def __init__(
        self,
        history: History,
        servers: list[Server],
        accounts: list[Account],
        most: int,
        acts: Mapping[str, float] = ACTS,
    ) -> None:
        self._history = history
        self._servers = servers
        self._accounts = accounts
        self._staff = [account for account in accounts if account.is_staff]
        self._most = most
        # How often each is done, beside the others.
        self._acts = acts
        self._numbers = itertools.count(1)
        self._gone: deque[Session] = deque(maxlen=200)
        self._streams: dict[Stream, tuple[asyncio.Task[None], Connection]] = {}
        self._stopping = False
        # How many ends of sessions were answered.
        self.ends = 0

    async def act(self) -> None:
        """One actor: acts until `stop`."""
        names, weights = list(self._acts), list(self._acts.values())
        while not self._stopping:
            account = random.choice(self._accounts)
            living = [session for session in account.sessions if not session.is_over]
            if not living or (len(living) < self._most - 1 and random.random() < 0.3):
                await self.start(account)
                continue
            session = random.choice(living)
            if self._gone and random.random() < 0.08:
                session = random.choice(self._gone)
            await self._do(random.choices(names, weights)[0], session)

    def stop(self) -> None:
        """Have every actor finish what it does."""
        self._stopping = True

    async def use_all(self) -> None:
        """Ask every server with every session that was ever started."""
        slots = asyncio.Semaphore(16)

        async def use(session: Session, server: Server) -> None:
            async with slots:
                await self.read_list(session, server=server)

        sessions = list(self._history.sessions)
        await asyncio.gather(*(use(session, server) for session in sessions for server in self._servers))

    async def watch_streams(self) -> None:
        """Give the streams of sessions that have ended the time that they have to close."""
        give_up_at = monotonic() + 1.5 * CLOSE_SECONDS
        # Once at the end; an event would cost each stream.
        while any(one.session.is_over for one in self._streams) and monotonic() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def close_streams(self) -> None:
        """Leave the streams that are still open."""
        for stream, (task, connection) in list(self._streams.items()):
            self._leave(stream, connection)
            task.cancel()
        await asyncio.gather(*(task for task, _ in list(self._streams.values())), return_exceptions=True)

    async def _do(self, act: str, session: Session) -> None:
        account = session.account
        match act:
            case "list":
                await self.read_list(session)
            case "detail":
                await self.detail(session)
            case "page":
                await self.read_page(session)
            case "live":
                await self.live(session)
            case "refresh" | "refresh twice":
                await self.refresh(session, 2 if act == "refresh twice" else 1)
            case "replay":
                await self.replay(session)
            case "rename":
                await self.rename(session, self._sibling(session))
            case "end":
                await self.end(session, self._sibling(session))
            case "end at once":
                target = self._sibling(session)
                await asyncio.gather(
                    self.end(session, target),
                    self.rename(session, target),
                    self.end(session, target),
                    self.refresh(target),
                    self.end(target, target),
                )
            case "end a gone one":
                if self._gone:
                    await self.end(session, random.choice(self._gone))
            case "sign out":
                await self.sign_out(session)
            case "others":
                await self.end_others(session)
            case "staff list" | "staff end" | "disable":
                if staff := await self._find_staff():
                    if act == "staff list":
                        await self.read_list(staff, account)
                    elif act == "staff end":
                        await self.end(staff, session)
                    elif not account.is_staff:
                        await self.disable(staff, account)
            case "password":
                await self.change_password(session)
            case "start":
                await self.start(account)
            case "start at once":
                await asyncio.gather(*(self.start(account) for _ in range(3)))

    def _sibling(self, session: Session) -> Session:
        """A session of the same account, often the same."""
        return random.choice([one for one in session.account.sessions if not one.is_over] or [session])

    async def _find_staff(self) -> Session | None:
        living = [session for account in self._staff for session in account.sessions if not session.is_over]
        return random.choice(living) if living else await self.start(random.choice(self._staff))

    async def start(self, account: Account) -> Session | None:
        """Sign in; often on a device that is known, whose session it replaces."""
        device_id = random.choice([None, None, None, "phone", "laptop"])
        password = random.choice(account.passwords)
        call = self._begin("start", account=account, value=(password, device_id))
        sent: dict[str, Any] = {"phone": account.phone, "password": password}
        if device_id:
            sent["device_id"] = device_id
        answer = await self._ask(call, "POST", f"/auth/{account.kind}/token/", body=sent)
        if answer is None or answer.status != 200:
            return None
        body = orjson.loads(answer.body)
        before = list(account.sessions)
        session = Session(account, body["session"], device_id, body["access"], body["refresh"], 1, call)
        account.sessions.append(session)
        self._history.sessions.append(session)
        if device_id:
            replaced = [one for one in before if one.device_id == device_id and one.started.answered < call.sent]
            await self._hunt([one for one in replaced if not one.is_over])
        return session

    async def read_list(self, session: Session, account: Account | None = None, server: Server | None = None) -> None:
        """Read the list of the caller's own account, or of another."""
        kind = (account or session.account).kind
        whose = f"{account.id}/" if account else random.choice(["", f"{session.account.id}/"])
        call = self._begin("list" if account is None else "list of another", session, account=account, server=server)
        details = random.choice(["", "", "?details=true"])
        answer = await self._ask(call, "GET", f"/sessions/session-{kind}-l/{whose}{details}", session.access)
        if answer and answer.status == 200:
            call.body = [one["id"] for one in orjson.loads(answer.body)]
            # Now that it can be read as one.
            call.act = "list"
        self._see(call)

    async def detail(self, session: Session) -> None:
        """Read the caller's own session."""
        call = self._begin("detail", session)
        await self._ask(call, "GET", f"/sessions/session-{session.account.kind}-r/{session.id}/", session.access)
        self._see(call)

    async def read_page(self, session: Session) -> None:
        """Look at the devices in a browser, whose cookie is of the session; strangers are led to the sign-in page."""
        call = self._begin("page", session)
        sid = read_payload(session.access)["sid"]
        kind, until = KINDS[session.account.kind], clock.now() + timedelta(days=1)
        cookie = TOKENS.make_cookie(kind, session.account.id, {"sid": sid, "id": session.id}, until)
        await self._ask(call, "GET", "/devices/", cookie=cookie)
        if call.status == 303:
            call.status = 403
        self._see(call)

    async def live(self, session: Session) -> None:
        """Open a live stream and leave it open."""
        if len(self._streams) >= MOST_STREAMS:
            stream, (_, connection) = random.choice(list(self._streams.items()))
            self._leave(stream, connection)
        call = self._begin("live", session)
        server = self._servers[call.server]
        try:
            answer, connection_ = await server.wire.open("/sessions/live/", session.access)
        except Broken as error:
            self._fail(call, error)
            return
        call.sent, call.answered, call.status = answer.sent, answer.answered, answer.status
        self._see(call)
        if connection_:
            stream = Stream(session, call)
            self._history.streams.append(stream)
            self._streams[stream] = asyncio.create_task(self._read(stream, connection_)), connection_

    async def _read(self, stream: Stream, connection: Connection) -> None:
        try:
            while line := await connection.reader.readline():
                if line.startswith(b"event: over"):
                    stream.over_at = monotonic()
                    self._lose(stream.session)
        except (OSError, ValueError):
            pass
        finally:
            self._leave(stream, connection)

    def _leave(self, stream: Stream, connection: Connection) -> None:
        if stream.closed_at is None:
            stream.closed_at = monotonic()
        connection.cut()
        self._streams.pop(stream, None)

    async def refresh(self, session: Session, times: int = 1) -> None:
        """Refresh, perhaps twice at once with the same token; both then have the same successor."""
        if session.is_refreshing:
            return
        session.is_refreshing = True
        try:
            await asyncio.gather(*(self._refresh(session, session.refresh) for _ in range(times)))
        finally:
            session.is_refreshing = False

    async def _refresh(self, session: Session, token: str, since: float | None = None, act: str = "refresh") -> None:
        call = self._begin(act, session, value=read_generation(token))
        call.since = since
        answer = await self._ask(call, "POST", "/auth/token/refresh/", body={"refresh": token})
        if answer and answer.status == 200:
            body = orjson.loads(answer.body)
            generation = read_generation(body["refresh"])
            call.body = (body["refresh"], generation)
            if generation > session.generation:
                session.access, session.refresh, session.generation = body["access"], body["refresh"], generation
                session.used.append((call.sent, token))
        self._see(call)

    async def replay(self, session: Session) -> None:
        """Use a refresh token again: as a slow tab would, or, where it was used long ago, as a thief."""
        is_late = random.random() < 0.5
        if is_late:
            living = [one for account in self._accounts for one in account.sessions if not one.is_over and one.used]
            session = random.choice([one for one in living if monotonic() - one.used[0][0] > LATE_SECONDS] or [session])
        else:
            for _ in range(2):
                await self.refresh(session)
        now = monotonic()
        late = [one for one in session.used if now - one[0] > LATE_SECONDS]
        # Between the two times it depends on how long a request takes.
        used = late if is_late else [one for one in session.used if now - one[0] < SOON_SECONDS]
        if session.is_over or session.is_refreshing or not used:
            return
        since, token = random.choice(used)
        session.is_refreshing = True
        try:
            await self._refresh(session, token, since, "replay" if is_late else "refresh")
        finally:
            session.is_refreshing = False
        if is_late:
            await self._hunt([session])

    async def rename(self, session: Session, target: Session) -> None:
        """Name a session of the account."""
        name = f"Name {next(self._numbers)}"
        call = self._begin("rename", session, target=target, value=name)
        path = f"/sessions/session-{target.account.kind}-u/{target.id}/"
        await self._ask(call, "PATCH", path, session.access, {"name": name})

    async def end(self, session: Session, target: Session) -> None:
        """End a session, and see at once whether it has ended."""
        call = self._begin("end", session, target=target)
        await self._ask(call, "DELETE", f"/sessions/session-{target.account.kind}-d/{target.id}/", session.access)
        if call.is_done:
            self.ends += 1
            await self._hunt([target])

    async def sign_out(self, session: Session) -> None:
        """End the caller's own session."""
        call = self._begin("sign out", session, target=session)
        await self._ask(call, "DELETE", f"/sessions/session-{session.account.kind}-d/", session.access)
        if call.is_done:
            self.ends += 1
            await self._hunt([session])

    async def end_others(self, session: Session) -> None:
        """End every other session of the account."""
        before = list(session.account.sessions)
        call = self._begin("others", session)
        answer = await self._ask(call, "DELETE", f"/sessions/session-{session.account.kind}-d/others/", session.access)
        if answer and answer.status == 200:
            call.body = orjson.loads(answer.body)
            await self._hunt([one for one in before if one is not session and not one.is_over])

    async def disable(self, staff: Session, account: Account) -> None:
        """Disable an account, try to get in, and enable it again."""
        if account.is_busy:
            return
        account.is_busy = True
        try:
            before = list(account.sessions)
            path = f"/accounts/{account.kind}/{account.id}/"
            call = self._begin("disable", staff, account=account, value=True)
            await self._ask(call, "PATCH", path, staff.access, {"disabled": True})
            if call.is_done:
                await asyncio.gather(self._hunt([one for one in before if not one.is_over]), self.start(account))
            # Until it is known to be enabled: else nobody would use it any more.
            while True:
                other = await self._find_staff()
                call = self._begin("disable", other, account=account, value=False)
                if other:
                    await self._ask(call, "PATCH", path, other.access, {"disabled": False})
                    if call.status == 403:
                        self._lose(other)
                if call.is_done or self._stopping:
                    break
                await asyncio.sleep(0.05)
        finally:
            account.is_busy = False

    async def change_password(self, session: Session) -> None:
        """Change the password, which ends the account's other sessions."""
        account = session.account
        if account.is_busy:
            return
        account.is_busy = True
        try:
            before = list(account.sessions)
            old, new = random.choice(account.passwords), f"a harbour {next(self._numbers)} quieter than dusk"
            call = self._begin("password", session, value=(old, new))
            body = {"password": old, "new_password": new}
            await self._ask(call, "POST", f"/auth/{account.kind}/password/", session.access, body)
            if call.is_done:
                account.passwords = [new]
                await self._hunt([one for one in before if one is not session and not one.is_over])
            elif call.is_unknown:
                account.passwords.append(new)
        finally:
            account.is_busy = False

    async def _hunt(self, ended: list[Session]) -> None:
        """Use sessions whose end was answered, at once and everywhere: they must not be good."""
        uses = []
        for session in ended[:4]:
            self._lose(session)
            uses += [self._do(act, session) for act in random.sample(HUNTED, 3)]
            uses += [self.read_list(session, server=server) for server in self._servers]
        for session in ended[4:]:
            self._lose(session)
        await asyncio.gather(*uses)

    def _lose(self, session: Session) -> None:
        if not session.is_over:
            session.is_over = True
            self._gone.append(session)
            if session in session.account.sessions:
                session.account.sessions.remove(session)

    def _begin(
        self,
        act: str,
        by: Session | None = None,
        *,
        account: Account | None = None,
        target: Session | None = None,
        value: Any = None,
        server: Server | None = None,
    ) -> Call:
        index = random.randrange(len(self._servers)) if server is None else self._servers.index(server)
        call = Call(act, index, monotonic(), by, account, target, value)
        self._history.calls.append(call)
        return call

    async def _ask(
        self,
        call: Call,
        method: str,
        path: str,
        token: str | None = None,
        body: Any = None,
        cookie: str | None = None,
    ) -> Answer | None:
        answer: Answer | None
        try:
            answer = await self._servers[call.server].wire.ask(method, path, token, body, cookie)
        except Broken as error:
            self._fail(call, error)
            answer = None
        if answer:
            call.sent, call.answered, call.status = answer.sent, answer.answered, answer.status
        if call.is_unknown:
            # A server or its database is away: don't ask in circles.
            await asyncio.sleep(0.02)
        return answer

    def _fail(self, call: Call, error: Broken) -> None:
        call.broken = monotonic()
        if isinstance(error, NoAnswer):
            self._history.failures.append(("no answer", str(error)))

    def _see(self, call: Call) -> None:
        """Remember that the caller's session is gone where the answer says so."""
        if call.status == 403 and call.by and call.act != "list of another":
            self._lose(call.by)


def read_generation(token: str) -> int:
    """Which of its session's refresh tokens this is."""
    generation: int = read_payload(token)["gen"]
    return generation


def read_payload(token: str) -> dict[str, Any]:
    """What a token of the servers says."""
    payload = token.split(".")[1]
    said: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return said
