"""The files that pages are made of, from memory, at addresses that change with them."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tornado import web

from handlers.base import ApiHandler

FOLDER = Path(__file__).parent.parent / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
SMALLEST_PACKED = 200


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    content: bytes
    packed: bytes | None
    type: str


@cache
def load() -> tuple[str, dict[str, File]]:
    """Every file under static/ by its name, and the name of this state of all of them."""
    files: dict[str, File] = {}
    state = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*")):
        if not path.is_file():
            continue
        name, content = path.relative_to(FOLDER).as_posix(), path.read_bytes()
        state.update(f"{name} {len(content)} ".encode() + content)
        type_ = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        is_text = path.suffix in (".css", ".js", ".svg")
        packed = gzip.compress(content, 9, mtime=0) if is_text and len(content) >= SMALLEST_PACKED else None
        files[name] = File(content, packed, type_)
    return state.hexdigest()[:12], files


def address(name: str) -> str:
    """Where a page finds a file; modules and style sheets find each other by relative addresses beside it."""
    state, files = load()
    if name not in files:
        raise KeyError(name)
    return f"/static/{state}/{name}"


class StaticHandler(ApiHandler):
    """One file; kept by browsers for good, as another state has another address."""

    is_open = True

    async def get(self, state: str, name: str) -> None:
        current, files = load()
        file = files.get(name)
        if file is None:
            raise web.HTTPError(404)
        self.set_header("Content-Type", file.type)
        self.set_header("Vary", "Accept-Encoding")
        # While servers are replaced by newer ones, an address of another state gets this one, and it is not kept.
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if state == current else "no-cache")
        if file.packed and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(file.packed)
        else:
            self.finish(file.content)
