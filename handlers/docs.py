"""The API page, where a person can try each call, and the document that it shows."""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
from importlib.metadata import distribution
from pathlib import Path

import jinja2

from handlers.base import ApiHandler

ROOT = Path(__file__).parent.parent
# Located, not imported: of the package nothing but its files is used.
SWAGGER = Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
FILES: dict[str, tuple[Path, str]] = {
    "swagger-ui-bundle.js": (SWAGGER, "text/javascript; charset=utf-8"),
    "swagger-ui.css": (SWAGGER, "text/css; charset=utf-8"),
    "docs.js": (ROOT / "static", "text/javascript; charset=utf-8"),
    "docs.css": (ROOT / "static", "text/css; charset=utf-8"),
}
# data: is for the icons of swagger-ui's own style sheet.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _make_version() -> str:
    """Names what the files hold, so that an address of theirs never changes its content."""
    digest = hashlib.sha256()
    for name, (folder, _) in FILES.items():
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def _make_page() -> bytes:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return pages.get_template("docs.html").render(assets=f"/docs/{VERSION}", document="/openapi.json").encode()


@functools.cache
def _read(name: str, *, is_zipped: bool) -> bytes:
    content = (FILES[name][0] / name).read_bytes()
    return gzip.compress(content, mtime=0) if is_zipped else content


VERSION = _make_version()
DOCS_FILE = f"/docs/{VERSION}/(?P<name>{'|'.join(name.replace('.', '[.]') for name in FILES)})"


def _dump_document() -> tuple[bytes, str]:
    # A megabyte and a half, for those who ask.
    from handlers import openapi

    return openapi.dump_document()


class OpenApiHandler(ApiHandler):
    """The whole JSON surface, as OpenAPI 3.1."""

    is_open = True

    async def get(self) -> None:
        # By a thread: making it takes a tenth of a second, once.
        document, _ = await asyncio.to_thread(_dump_document)
        self.set_header("Cache-Control", "no-cache")
        self.finish(document)

    def compute_etag(self) -> str:
        return _dump_document()[1]


class DocsHandler(ApiHandler):
    """The page."""

    is_open = True

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")
        self.finish(_make_page())


class DocsFileHandler(ApiHandler):
    """The page's scripts and styles, kept by browsers for good: another content has another address."""

    is_open = True

    async def get(self, name: str) -> None:
        is_zipped = "gzip" in self.request.headers.get("Accept-Encoding", "")
        # Read and packed once; a megabyte is not packed in the loop.
        content = await asyncio.to_thread(_read, name, is_zipped=is_zipped)
        self.set_header("Content-Type", FILES[name][1])
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("Vary", "Accept-Encoding")
        if is_zipped:
            self.set_header("Content-Encoding", "gzip")
        self.finish(content)
