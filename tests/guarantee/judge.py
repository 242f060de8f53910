"""The guarantee as rules over a history and what the database holds in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.guarantee.history import Account, Call, Event, History, Key, Ledger, Session

# A live stream of an ended session closes within this.
CLOSE_SECONDS = 1.0
# So long after its database was taken away a server may say so.
AWAY_SECONDS = 15
AWAY = {"postgres", "postgres back", "backends"}
# What breaks connections; those that are kept are found broken later.
BREAKING = {"workers", "server", "connections", "crash"}
ANSWERS = {200, 204, 401, 403}

# These ask of the caller's session alone: 403 says that it is gone.
PROOFS = {"list", "detail", "page", "live", "refresh", "replay"}


class Violation(NamedTuple):
    """A promise that was broken, and how."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class End:
    """From when on a session was known to have ended, and whence."""

    at: float
    why: str


def judge(history: History, ledger: Ledger, most: int) -> list[Violation]:
    """Every violation, where an account may have `most` sessions."""
    ends = find_ends(history)
    return [
        *(Violation(kind, what) for kind, what in history.failures),
        *_check_answers(history),
        *_check_uses(history, ends),
        *_check_streams(history, ends),
        *_check_lists(history, ledger, ends, most),
        *_check_cap(history, most),
        *_check_refusals(history, ledger),
        *_check_log(history, ledger),
        *_check_causes(history, ledger, most),
        *_check_refreshes(history, ledger),
        *_check_names(history, ledger),
        *_check_passwords(history),
    ]


def find_ends(history: History) -> dict[Key, End]:
    """From when on each session was known to have ended: an end was answered, or its absence was."""
    ends: dict[Key, End] = {}
    by_account: defaultdict[Key, list[Session]] = defaultdict(list)
    for session in history.sessions:
        by_account[session.account.key].append(session)

    def note(session: Session, at: float, why: str) -> None:
        known = ends.get(session.key)
        if known is None or at < known.at:
            ends[session.key] = End(at, why)

    for call in history.calls:
        if call.status == 403 and call.act in PROOFS and call.by:
            note(call.by, call.answered, f"refused: {call}")
        if not call.is_done:
            continue
        if call.act in ("end", "sign out") and call.target:
            note(call.target, call.answered, str(call))
            continue
        account = call.account or (call.by.account if call.by else None)
        if account is None:
            continue
        for session in by_account[account.key]:
            # Who started while the call was under way may have come after it.
            if session.started.answered < call.sent and _ends(call, session):
                note(session, call.answered, str(call))
    for stream in history.streams:
        if stream.over_at is not None:
            note(stream.session, stream.over_at, f"its stream said so: {stream.opened}")
    return ends


def _ends(call: Call, session: Session) -> bool:
    """Whether `call`, which was carried out, ended `session`, which its account had when it was sent."""
    match call.act:
        case "others" | "password":
            return session is not call.by
        case "disable":
            return bool(call.value)
        case "start":
            return call.value[1] is not None and session.device_id == call.value[1]
        case "list":
            return session.id not in call.body
    return False


def _check_answers(history: History) -> Iterator[Violation]:
    """No answer says that something went wrong; the database is away, and connections break, only for a reason."""
    away = [at for at, name in history.faults if name in AWAY]
    breaking = min((at for at, name in history.faults if name in BREAKING), default=float("inf"))
    for call in history.calls:
        if call.broken is not None and call.broken < breaking:
            yield Violation("a connection broke without reason", str(call))
        if call.status == 503:
            if not any(call.sent - AWAY_SECONDS < at < call.answered for at in away):
                yield Violation("unavailable without reason", str(call))
        elif call.status is not None and call.status not in ANSWERS and (call.act, call.status) != ("password", 400):
            yield Violation(f"an answer of {call.status}", str(call))
        elif call.status == 401 and call.act != "start":
            yield Violation("a good token refused", str(call))


def _check_uses(history: History, ends: dict[Key, End]) -> Iterator[Violation]:
    """Nothing that was sent after its session's end was answered succeeds."""
    for call in history.calls:
        if call.by and call.is_done and (end := ends.get(call.by.key)) and call.sent > end.at:
            late = (call.sent - end.at) * 1000
            yield Violation(f"{call.act} after the end", f"{call}, {late:.1f} ms after the end: {end.why}")


def _check_streams(history: History, ends: dict[Key, End]) -> Iterator[Violation]:
    """A live stream closes within a second of its session's end."""
    for stream in history.streams:
        if not (end := ends.get(stream.session.key)):
            continue
        due = max(end.at, stream.opened.answered) + CLOSE_SECONDS
        # The checker may have been late itself.
        due += sum(late for at, late in history.delays if end.at <= at <= due + late)
        if stream.closed_at is None or stream.closed_at > due:
            closed = "never" if stream.closed_at is None else f"at {stream.closed_at:.4f}"
            yield Violation("a stream stayed open", f"closed {closed}: {stream.opened}; the end: {end.why}")


def _check_lists(history: History, ledger: Ledger, ends: dict[Key, End], most: int) -> Iterator[Violation]:
    """A list names each session of its account that lives, once, and no other."""
    known = {session.key: session for session in history.sessions}
    by_account: defaultdict[Key, list[Session]] = defaultdict(list)
    for session in history.sessions:
        by_account[session.account.key].append(session)
    for call in history.calls:
        if call.act != "list" or not call.is_done or not call.by:
            continue
        account = call.account or call.by.account
        if len(set(call.body)) != len(call.body):
            yield Violation("a session listed twice", f"{call}: {call.body}")
        if len(call.body) > most:
            yield Violation("more sessions than the cap", f"{call}: {call.body}")
        for number in call.body:
            listed = known.get((account.kind, number))
            if listed and listed.account is not account:
                yield Violation("a session of another account listed", f"{call}: {number}")
            end = ends.get((account.kind, number))
            if end and call.sent > end.at:
                yield Violation("listed after the end", f"{call}: {number}; the end: {end.why}")
        for session in by_account[account.key]:
            if session.started.answered < call.sent and session.key in ledger.live and session.id not in call.body:
                yield Violation("a live session not listed", f"{call}: {session.id}")


def _check_cap(history: History, most: int) -> Iterator[Violation]:
    """At no moment more sessions of an account live than may: each does from its start's answer to its last use."""
    last_use: dict[Key, float] = {}
    for call in history.calls:
        if call.by and call.is_done:
            last_use[call.by.key] = max(call.sent, last_use.get(call.by.key, 0))
    moments: defaultdict[Account, list[tuple[float, int, int]]] = defaultdict(list)
    for session in history.sessions:
        if (last := last_use.get(session.key, 0)) > session.started.answered:
            moments[session.account] += [(session.started.answered, 1, session.id), (last, -1, session.id)]
    for account, at_account in moments.items():
        living: set[int] = set()
        for at, step, number in sorted(at_account):
            if step < 0:
                living.discard(number)
                continue
            living.add(number)
            if len(living) > most:
                yield Violation("more live than the cap", f"{account.kind} {account.id} at {at:.4f}: {sorted(living)}")


def _check_refusals(history: History, ledger: Ledger) -> Iterator[Violation]:
    """Nobody is refused who was there all along."""
    for call in history.calls:
        if call.status != 403 or not call.by or call.by.key not in ledger.live:
            continue
        if call.act in PROOFS:
            yield Violation("refused while it lived", str(call))
        elif call.target and call.target.key in ledger.live and _may(call):
            yield Violation("an act refused although both lived", str(call))


def _may(call: Call) -> bool:
    """Whether the caller of an act on a session had the right to it."""
    return bool(call.by and call.target and (call.by.account is call.target.account or call.by.account.is_staff))


def _check_log(history: History, ledger: Ledger) -> Iterator[Violation]:
    """The log has one start for each session, and one end for each that is gone, after its start."""
    starts: defaultdict[Key, list[Event]] = defaultdict(list)
    ends: defaultdict[Key, list[Event]] = defaultdict(list)
    for event in ledger.events:
        if event.session_id is not None and event.type in ("started", "ended"):
            (starts if event.type == "started" else ends)[event.kind, event.session_id].append(event)
    for key in {*starts, *ends, *ledger.live}:
        if len(starts[key]) != 1:
            yield Violation("not one start", f"{key}: {starts[key]}")
        if len(ends[key]) != (key not in ledger.live):
            lives = "lives" if key in ledger.live else "is gone"
            yield Violation("not one end" if ends[key] else "gone without its end", f"{key} {lives}: {ends[key]}")
        elif ends[key] and starts[key] and ends[key][0].id < starts[key][0].id:
            yield Violation("ended before it started", f"{key}")
    for key, count in Counter(session.key for session in history.sessions).items():
        if count > 1:
            yield Violation("an id given twice", f"{key}")
        if not starts[key]:
            yield Violation("a start that was answered is lost", f"{key}")
    for call in history.calls:
        if call.act in ("end", "sign out") and call.status == 204 and call.target:
            if call.target.key in ledger.live or not ends[call.target.key]:
                yield Violation("an end that was answered is lost", str(call))
            elif ends[call.target.key][0].cause != _cause(call):
                yield Violation("an end reported that was another's", f"{call}: {ends[call.target.key]}")
    for key, end in find_ends(history).items():
        if key in ledger.live:
            yield Violation("back to life", f"{key}: {end.why}")
    known = {session.key for session in history.sessions}
    unknown = Counter(
        call.account.key for call in history.calls if call.act == "start" and call.account and call.is_unknown
    )
    strangers = Counter((event.kind, event.account_id) for key in starts if key not in known for event in starts[key])
    for (kind, account_id), count in strangers.items():
        if account_id is None or count > unknown[kind, account_id]:
            yield Violation("sessions that nobody asked for", f"{kind} {account_id}: {count}")


def _cause(call: Call) -> str:
    """As what the end that `call` asked for is logged."""
    if call.by is call.target:
        return "signed_out"
    return "owner" if call.by and call.target and call.by.account is call.target.account else "staff"


def _is_in_jump(history: History, call: Call) -> bool:
    """Whether the clock was set between the first use of a refresh token and this one."""
    since = (call.since or call.sent) - 0.1
    return any(name == "clock" and since < at < call.answered + 0.1 for at, name in history.faults)


def _check_causes(history: History, ledger: Ledger, most: int) -> Iterator[Violation]:
    """Each end in the log was asked for, and as many as were answered."""
    answered: Counter[tuple[Key, str]] = Counter()
    maybe: set[tuple[Key, str]] = set()
    asked: set[tuple[Key, str]] = set()
    stolen: set[Key] = set()
    for call in history.calls:
        account = call.account or (call.by.account if call.by else None)
        if account is None or not (call.is_done or call.is_unknown or call.since):
            continue
        if call.act in ("end", "sign out") and call.target:
            named = (call.target.account.key, _cause(call))
            answered[named] += call.is_done
        elif call.act == "others":
            named = (account.key, "owner")
            answered[named] += call.body["ended"] if call.is_done else 0
        else:
            if call.act in ("password", "disable"):
                asked.add((account.key, "disabled" if call.act == "disable" else "password"))
            elif call.act == "start":
                asked.add((account.key, "replaced"))
            elif call.by and (
                call.act == "replay" or (call.act == "refresh" and (call.is_unknown or _is_in_jump(history, call)))
            ):
                # A refresh that nobody heard of may be carried out late, and then looks like a thief's.
                stolen.add(call.by.key)
            continue
        if call.is_unknown:
            maybe.add(named)
    logged: Counter[tuple[Key, str]] = Counter()
    started: Counter[Key] = Counter()
    for event in ledger.events:
        if event.account_id is None:
            continue
        account_key = (event.kind, event.account_id)
        started[account_key] += event.type == "started"
        if event.type == "ended":
            logged[account_key, event.cause or ""] += 1
            if event.cause == "theft" and (event.kind, event.session_id or 0) not in stolen:
                yield Violation("a theft that was none", f"{event}")
    for (account_key, cause), count in (logged | answered).items():
        named, count = (account_key, cause), logged[account_key, cause]
        if cause in ("owner", "signed_out", "staff"):
            if count < answered[named] or (count > answered[named] and named not in maybe):
                what = f"{account_key} {cause}: {answered[named]} were answered, {count} are in the log"
                yield Violation("ends answered and logged differ", what)
        elif cause == "cap":
            if started[account_key] <= most:
                yield Violation("an end that nobody asked for", f"{account_key} {cause}")
        elif cause != "theft" and named not in asked:
            yield Violation("an end that nobody asked for", f"{account_key} {cause}")


def _check_refreshes(history: History, ledger: Ledger) -> Iterator[Violation]:
    """A chain of refresh tokens has one end: the same token gives the same successor, and one that is the next."""
    successors: defaultdict[tuple[Key, int], set[str]] = defaultdict(set)
    known: defaultdict[Key, int] = defaultdict(lambda: 1)
    maybe: defaultdict[Key, set[int]] = defaultdict(set)
    for call in history.calls:
        if call.act not in ("refresh", "replay") or not call.by:
            continue
        if call.is_done:
            successor, generation = call.body
            successors[call.by.key, call.value].add(successor)
            known[call.by.key] = max(known[call.by.key], generation)
            if generation != call.value + 1:
                yield Violation("a successor that is not the next", f"{call}: {call.value} gave {generation}")
            if call.act == "replay" and not _is_in_jump(history, call):
                yield Violation("a stolen token was good", str(call))
        elif call.is_unknown:
            maybe[call.by.key].add(call.value + 1)
    for (key, generation), tokens in successors.items():
        if len(tokens) > 1:
            yield Violation("two successors", f"{key} at {generation}")
    for session in history.sessions:
        row, newest = ledger.live.get(session.key), known[session.key]
        if row and row.generation != newest and not (row.generation > newest and row.generation in maybe[session.key]):
            yield Violation("a refresh was lost", f"{session.key}: {row.generation}, not {newest}")


def _check_names(history: History, ledger: Ledger) -> Iterator[Violation]:
    """A session has the name that it was given last."""
    renames: defaultdict[Key, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.act == "rename" and call.target and (call.is_done or call.is_unknown):
            renames[call.target.key].append(call)
    for key, row in ledger.live.items():
        done = [call for call in renames[key] if call.is_done]
        # One that was answered before another was sent that was answered too is written over.
        newest = max((call.sent for call in done), default=0)
        possible = {call.value for call in renames[key] if call.answered >= newest}
        if not done:
            possible.add(None)
        if row.name not in possible:
            yield Violation("a name was lost", f"{key}: {row.name!r}, not one of {possible}")


def _check_passwords(history: History) -> Iterator[Violation]:
    """A password that was changed starts nothing; nor does an account that is disabled."""
    changes = {
        (call.by.account.key, call.value[0]): call
        for call in history.calls
        if call.act == "password" and call.is_done and call.by
    }
    closings: defaultdict[Key, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.act == "disable" and call.account:
            closings[call.account.key].append(call)
    for call in history.calls:
        if call.act != "start" or not call.is_done or not call.account:
            continue
        change = changes.get((call.account.key, call.value[0]))
        if change and call.sent > change.answered:
            yield Violation("an old password was good", f"{call}; changed by {change}")
        for closing in closings[call.account.key]:
            if not (closing.value and closing.is_done and call.sent > closing.answered):
                continue
            opened = [one for one in closings[call.account.key] if not one.value and one.status not in (400, 401, 403)]
            if not any(one.answered > closing.sent and one.sent < call.answered for one in opened):
                yield Violation("a disabled account signed in", f"{call}; disabled by {closing}")
