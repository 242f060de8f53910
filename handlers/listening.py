"""Sockets that connections come in on, which leave some file descriptors to all else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from typing import Any

from handlers.base import RETRY_SECONDS

# So many descriptors are left to the database, to mail, to pictures; the last of them to these alone.
KEPT = 64
KEPT_LAST = 16
# Who is told to come again has so long to read it.
TOLD_SECONDS = 1

_BODY = b'{"detail":"Too many connections. Try again in a moment."}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
    b"Retry-After: %d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (RETRY_SECONDS, len(_BODY), _BODY)
)


class Listening(socket.socket):
    """A listening socket; who comes while few descriptors are left is told to come again."""

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # As though nobody had come: Tornado would log this, and be called again, without end.
            raise BlockingIOError from error
        # A new descriptor is the lowest that is free.
        left = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - connection.fileno()
        if left > KEPT:
            return connection, address
        if left > KEPT_LAST:
            _tell(connection)
        else:
            connection.close()
        # What Tornado takes for a caller who has left again: it goes on with the next.
        raise ConnectionAbortedError


def _tell(connection: socket.socket) -> None:
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        connection.send(_BUSY)
        connection.shutdown(socket.SHUT_WR)
    # Closed at once, what he still sends would cut the answer off.
    asyncio.get_running_loop().call_later(TOLD_SECONDS, connection.close)
