"""Page: how the house is doing: its numbers, and what happens in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.admin.charts import Bar, make_bars, make_columns
from handlers.admin.filters import write_address, write_time
from handlers.admin.people import DESK
from handlers.admin.staff import StaffHandler
from handlers.admin.words import name_cause, name_value
from handlers.languages import N_
from handlers.queries import NONE
from models import clock, desk, overview
from models.overview import Overview, Span

# How far back the chart goes: its name in addresses, in words, and how long one of its columns is.
SPANS: dict[Span, tuple[str, timedelta]] = {
    "day": (N_("24 hours"), timedelta(hours=1)),
    "week": (N_("7 days"), timedelta(hours=6)),
    "month": (N_("30 days"), timedelta(days=1)),
}
DEFAULT: Span = "day"
MOST_BARS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, what it counts, what it is made of, and the list behind it."""

    label: str
    count: int
    parts: str
    address: str | None


class OverviewHandler(StaffHandler):
    """Live sessions, today's sign-ins, ends and refusals, charts."""

    async def get(self) -> None:
        language, now = self.language, clock.now()
        asked = self.get_query_argument("span", "")
        span = next((name for name in SPANS if name == asked), DEFAULT)
        local = now.astimezone(language.zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        ahead = local.utcoffset() or timedelta()
        database, principal = self.parts.database, self.principal
        seen = self.must(await overview.read(database, principal, midnight, now))
        points = self.must(await overview.read_series(database, principal, span, now, ahead))
        choices = self.must(await desk.list_choices(database, principal, now))
        live = sum(seen.live.values())
        ends = sorted(seen.ended.items(), key=lambda part: -part[1])
        self.render_page(
            "desk/overview.html",
            midnight=midnight,
            figures=self._count(seen, midnight),
            chart=make_columns([(at.at, at.started, at.ended) for at in points], SPANS[span][1], now, language),
            span=span,
            spans=[(name, self._(label), write_address(DESK, {"span": name})) for name, (label, _) in SPANS.items()],
            causes=make_bars(
                ends,
                language,
                lambda cause: name_cause(cause, self.language),
                lambda cause: _events(midnight, type="ended", cause=cause),
            ),
            parts={name: self._bars(name, counted, live) for name, counted in choices.items()},
        )

    def _bars(self, name: str, counted: list[tuple[str, int]], live: int) -> list[Bar]:
        return make_bars(
            counted[:MOST_BARS],
            self.language,
            lambda value: name_value(name, value, self.language),
            lambda value: write_address(f"{DESK}sessions/", {name: value or NONE}),
            live,
        )

    def _count(self, seen: Overview, midnight: datetime) -> list[Figure]:
        live, made, ended = (sum(counts.values()) for counts in (seen.live, seen.accounts, seen.ended))
        by_hand = sum(seen.ended.get(cause, 0) for cause in ("staff", "emergency"))
        return [
            Figure(self._(N_("Live now")), live, self._by_kind(seen.live), f"{DESK}sessions/"),
            Figure(
                self._(N_("Sign-ins today")),
                seen.started,
                self._(N_("{number} on new devices"), number=self.language.number(seen.new_devices)),
                _events(midnight, type="started"),
            ),
            Figure(
                self._(N_("Sessions ended today")),
                ended,
                self._(N_("{number} by staff"), number=self.language.number(by_hand)),
                _events(midnight, type="ended"),
            ),
            Figure(
                self._(N_("Sign-ins refused today")),
                seen.refused,
                self._(N_("wrong passwords and codes")),
                _events(midnight, type="refused"),
            ),
            Figure(
                self._(N_("New devices today")),
                seen.new_devices,
                self._(N_("never seen before")),
                _events(midnight, type="started", cause="device"),
            ),
            Figure(self._(N_("Accounts")), made, self._by_kind(seen.accounts), f"{DESK}accounts/"),
        ]

    def _by_kind(self, counts: Mapping[str, int]) -> str:
        number = self.language.number
        return self._(
            N_("Users\xa0{users} · Clients\xa0{clients}"),
            users=number(counts.get("user", 0)),
            clients=number(counts.get("client", 0)),
        )


def _events(since: datetime, **asked: str) -> str:
    return write_address(f"{DESK}events/", asked | {"since": write_time(since)})
