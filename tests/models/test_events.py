"""What an account may read of an event of its own."""

from __future__ import annotations

from typing import Any

import pytest

from models.events import show_own
from models.principals import Principal
from models.schema import CLIENT, USER, Kind

FROM = {"ip": "192.0.2.1", "ip_key": "v4", "country": "DE"}


@pytest.mark.parametrize(
    ("by_kind", "by_id", "is_shown"),
    [("client", 7, True), (None, None, True), ("user", 7, False), ("client", 8, False), ("user", 8, False)],
)
@pytest.mark.parametrize("kind", [CLIENT])
def test_of_what_another_did_neither_who_nor_from_where(
    kind: Kind, by_kind: str | None, by_id: int | None, is_shown: bool
) -> None:
    event: dict[str, Any] = {"by_kind": by_kind, "by_id": by_id, "type": "ended", **FROM}
    shown = show_own(event, Principal(kind, 7, 1))
    assert (shown["by_id"], {name: shown[name] for name in FROM}) == (
        (by_id, FROM) if is_shown else (None, dict.fromkeys(FROM))
    )
    assert show_own({**event, "by_kind": "user", "by_id": 9}, Principal(USER, 9, 1))["ip"] == FROM["ip"]
