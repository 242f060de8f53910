"""Turns: what processes that share a file do one after another, none again while another waits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from io import FileIO
from time import monotonic, sleep

# Between two looks whether it is free: nothing tells, and those who have it have it for milliseconds.
LOOK_SECONDS = 0.001
# What struct flock is: type, whence, start, length, process (fcntl(2)).
_FLOCK = "hhqqi"


class Place:
    """A byte of a file, which one who opened it holds at a time; whoever ends holds none (fcntl(2), F_OFD_SETLK).

    The file needs no such byte, and SQLite does not lock this one: the locks of a process are apart from these. On a
    file system that has no such locks everybody holds his place.
    """

    def __init__(self, file: FileIO, byte: int) -> None:
        self._file = file
        self._byte = byte

    def take(self, give_up_at: float = 0) -> bool:
        """Wait for it until then, by the monotonic clock; whether it is held now."""
        while not self._try():
            if monotonic() >= give_up_at:
                return False
            sleep(LOOK_SECONDS)
        return True

    def give(self) -> None:
        """Hold it no more."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, self._lock(fcntl.F_UNLCK))

    def is_taken(self) -> bool:
        """Whether another holds it."""
        with contextlib.suppress(OSError):
            found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, self._lock(fcntl.F_WRLCK))
            return bool(struct.unpack_from(_FLOCK, found)[0] != fcntl.F_UNLCK)
        return False

    def _try(self) -> bool:
        with contextlib.suppress(OSError):
            try:
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, self._lock(fcntl.F_WRLCK))
            except BlockingIOError:
                return False
        return True

    def _lock(self, kind: int) -> bytes:
        return struct.pack(_FLOCK, kind, os.SEEK_SET, self._byte, 1, 0)


class Turn:
    """Two places: whoever waits for the second holds the first, so that nobody has a turn again before him."""

    def __init__(self, first: Place, second: Place) -> None:
        self._first = first
        self._second = second
        self.is_ours = False

    def take(self, seconds: float) -> bool:
        """Wait for a turn that long, unless it is ours and nobody else waits; whether it is ours now."""
        if self.is_ours and not self._first.is_taken():
            return True
        self.give()
        give_up_at = monotonic() + seconds
        if self._first.take(give_up_at):
            try:
                self.is_ours = self._second.take(give_up_at)
            finally:
                self._first.give()
        return self.is_ours

    def give(self) -> None:
        """Have the next one do it."""
        if self.is_ours:
            self.is_ours = False
            self._second.give()
