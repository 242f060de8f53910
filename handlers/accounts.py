"""JSON under /accounts/: what staff do to accounts."""

from __future__ import annotations

from handlers.answers import shape_account
from handlers.base import ApiHandler, forbidden, read_id
from handlers.bodies import AccountChange
from models import accounts, clock
from models.schema import KINDS


class AccountHandler(ApiHandler):
    """Confirming an account by hand; disabling it, which ends its sessions; enabling it again."""

    async def patch(self, kind: str, id: str) -> None:
        of, body = KINDS[kind], self.read_body(AccountChange)
        row = await self.parts.database.write(
            accounts.change_by_staff,
            self.principal,
            of,
            read_id(id),
            body.confirmed,
            body.disabled,
            self.origin,
            clock.now(),
        )
        if row is None:
            raise forbidden()
        self.answer(shape_account(of, row, self.site) | {"disabled": row["disabled_at"] is not None})
