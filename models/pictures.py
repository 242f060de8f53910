"""Accounts' own pictures: made anew, small and without whatever else was in the file."""

from __future__ import annotations

import hashlib
import io
import struct
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from models import accounts
from models.principals import Principal, is_proven
from models.schema import PICTURES, Kind

LARGEST = 2 * 1024 * 1024
SIDE = 256
# What a camera makes, and a screen, with room: a file of some kilobytes can claim to be a thousand times that, and
# other than a JPEG a PNG is read whole, four bytes for each and as many again.
MOST_PIXELS = {"JPEG": 60_000_000, "PNG": 24_000_000}
# A camera's JPEG has some ten, each of which is read over all of the picture.
MOST_SCANS = 50
START_OF_SCAN = b"\xff\xda"


class NotAPicture(ValueError):
    """The file is no JPEG or PNG that can be read, or has more pixels or scans than any camera makes."""


def make(content: bytes) -> bytes:
    """The JPEG to keep of an uploaded picture: a square of its middle, upright. Takes a while: not in the loop."""
    # Megabytes of memory, for the few processes that are sent a picture.
    from PIL import Image, ImageOps

    if content.startswith(b"\xff\xd8") and content.count(START_OF_SCAN) > MOST_SCANS:
        raise NotAPicture
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
            # What is thin can't be read at less than its size.
            is_shrunk = picture.format == "JPEG" and min(picture.size) >= SIDE * 4
            if picture.width * picture.height > MOST_PIXELS["JPEG" if is_shrunk else "PNG"]:
                raise NotAPicture
            # A JPEG is read at no more than it needs: a large one is as quick as a small one.
            picture.draft("RGB", (SIDE * 2, SIDE * 2))
            # In place, and only then made small: each copy of a large one is a hundred megabytes.
            ImageOps.exif_transpose(picture, in_place=True)
            has_shades = picture.mode in ("L", "RGB", "RGBA")
            square = ImageOps.fit(picture if has_shades else picture.convert("RGBA"), (SIDE, SIDE)).convert("RGBA")
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise NotAPicture from error
    paper = Image.new("RGB", square.size, "white")
    paper.paste(square, mask=square.getchannel("A"))
    made = io.BytesIO()
    paper.save(made, "JPEG", quality=85, optimize=True)
    return made.getvalue()


def put(db: Connection, principal: Principal, jpeg: bytes | None, now: datetime) -> bool:
    """Keep the account's picture, in place of the last one; none takes it away. False where its session has ended."""
    kind, columns = principal.kind, PICTURES.c
    file = f"{hashlib.sha256(jpeg).hexdigest()[:32]}.jpeg" if jpeg else None
    if not accounts.change(db, kind, principal.account_id, now, {"image": file}, is_proven(principal, now)):
        return False
    db.execute(delete(PICTURES).where(columns.kind == kind.name, columns.account_id == principal.account_id))
    if jpeg:
        values = {"kind": kind.name, "account_id": principal.account_id, "file": file, "jpeg": jpeg}
        db.execute(insert(PICTURES).inline().values(values))
    return True


def get(db: Connection, kind: Kind, account_id: int, file: str) -> bytes | None:
    """An account's picture by the name that its address has; None where there is none of that name."""
    columns = PICTURES.c
    return db.scalar(
        select(columns.jpeg).where(columns.kind == kind.name, columns.account_id == account_id, columns.file == file)
    )
