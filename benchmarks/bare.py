"""The mark to measure against: a bare RequestHandler with Tornado's defaults that sends the same bytes."""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path

from tornado import web
from tornado.httpserver import HTTPServer


class BareHandler(web.RequestHandler):
    """Sends what it was given, and nothing else."""

    body = b""

    def get(self) -> None:
        """The same bytes each time."""
        self.set_header("Content-Type", "application/json")
        self.write(self.body)

    def delete(self) -> None:
        """No content."""
        self.set_status(204)


async def serve(number: int) -> None:
    """Answer on an inherited socket until killed."""
    server = HTTPServer(web.Application([(".*", BareHandler)]))
    server.add_socket(socket.socket(fileno=number))
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--body", type=Path, required=True)
    options = parser.parse_args()
    BareHandler.body = options.body.read_bytes()
    asyncio.run(serve(options.socket))
