"""JSON under /accounts/: what staff do to accounts."""

from __future__ import annotations

from handlers.answers import shape_account
from handlers.base import ApiHandler, Refusal, forbidden, read_id
from handlers.bodies import AccountChange
from models import accounts, clock
from models.accounts import LastStaff, NotAUser
from models.schema import KINDS


class AccountHandler(ApiHandler):
    """Confirming an account by hand; disabling it, which ends its sessions; enabling it again; its role."""

    async def patch(self, kind: str, id: str) -> None:
        of, body = KINDS[kind], self.read_body(AccountChange)
        change = accounts.AccountChange(**body.model_dump(exclude={"reason"}))
        try:
            row = await self.parts.database.write(
                accounts.change_by_staff, self.principal, of, read_id(id), change, body.reason, self.origin,
                self.parts.settings.sessions, clock.now(),
            )  # fmt: skip
        except LastStaff:
            field = "staff" if body.staff is False else "disabled"
            raise Refusal(400, {field: ["Nobody else is staff: make somebody staff first."]}) from None
        except NotAUser:
            field = "viewer" if body.staff is None else "staff"
            raise Refusal(400, {field: ["Clients have no roles."]}) from None
        if row is None:
            raise forbidden()
        roles = {role: row[f"is_{role}"] for role in ("staff", "viewer") if f"is_{role}" in row}
        self.answer(shape_account(of, row, self.site) | {"disabled": row["disabled_at"] is not None} | roles)
