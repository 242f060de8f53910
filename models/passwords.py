"""Passwords: Argon2id (RFC 9106), on threads of their own, and none that is easily guessed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST = 256
# Checked where there is no account, so that the answer takes as long: of a password that was drawn and not kept.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$01R9Zh3/wvzPQr9FrDtzyQ$vuAmdYzLLRtR0/SMxLyy6Y/kjesxJocs85Bgs17P+Mk"
# About a second's work.
MOST_WAITING = 80
P = ParamSpec("P")
T = TypeVar("T")

# <malloc.h>
M_MMAP_THRESHOLD = -3

# What zxcvbn looks at, of each end: it takes four seconds for the worst of 64, a sixth of one for the worst of these.
LOOKED_AT = 20
# Some seconds' work at worst, and mostly none.
MOST_JUDGED = 10
# Fewer guesses than an attacker tries online: about what the 30,000 common passwords and their variants take.
FEWEST_GUESSES = 1_000_000


class WeakPassword(ValueError):
    """The password is too short, too long or too easily guessed; says so in a sentence."""


class Busy(Exception):
    """So many passwords wait to be checked that one more would wait too long."""


class Passwords:
    """Hashes and checks, two at a time, so that the loop goes on and a flood waits its turn, or is sent away."""

    def __init__(self, fewest: int = 8) -> None:
        self._fewest = fewest
        _give_back()
        # OWASP's parameters; 23 ms on a small machine.
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="password", initializer=_give_way)
        # Whether a password is good is judged apart, slowly: those that only sign in don't wait for it.
        self._judging = ThreadPoolExecutor(1, thread_name_prefix="judge", initializer=_give_way)
        self._waiting = dict.fromkeys((self._threads, self._judging), 0)

    async def hash(self, password: str, *personal: str | None, is_known: bool = False) -> str:
        """The hash to keep. Raises WeakPassword; `personal` are words that must not be the password. Raises Busy.

        Half of the queue is kept for who is known, as in `is_right`.
        """
        await self._run(self._judging, MOST_JUDGED * (1 + is_known), self._judge, password, *personal)
        return await self._run(self._threads, MOST_WAITING * (1 + is_known), self._hasher.hash, password)

    async def is_right(self, password: str, password_hash: str | None, *, is_known: bool = False) -> bool:
        """Whether the hash is the password's; takes as long where there is no hash. Raises Busy.

        Half of the queue is kept for who is known: strangers can't fill it.
        """
        return await self._run(self._threads, MOST_WAITING * (1 + is_known), self._verify, password, password_hash)

    def hash_now(self, password: str, *personal: str | None) -> str:
        """`hash` in the calling thread."""
        self._judge(password, *personal)
        return self._hasher.hash(password)

    def close(self) -> None:
        """Let the threads go."""
        self._judging.shutdown()
        self._threads.shutdown()

    def _judge(self, password: str, *personal: str | None) -> None:
        if len(password) < self._fewest:
            raise WeakPassword(f"Use at least {self._fewest} characters.")
        if len(password) > LONGEST:
            raise WeakPassword(f"Use at most {LONGEST} characters.")
        # Twelve megabytes of words, for the few workers where passwords are made.
        from zxcvbn import zxcvbn

        words = [end for word in personal if word for end in _ends(word)]
        # A long one is as good as the better of its ends.
        if max(zxcvbn(end, user_inputs=words)["guesses"] for end in _ends(password)) < FEWEST_GUESSES:
            raise WeakPassword("This password is too common or too easily guessed. Use a longer or a rarer one.")

    def _verify(self, password: str, password_hash: str | None) -> bool:
        try:
            self._hasher.verify(password_hash or NOBODY, password[: LONGEST + 1])
        except (VerificationError, InvalidHashError):
            return False
        return bool(password_hash)

    async def _run(
        self, threads: ThreadPoolExecutor, most: int, function: Callable[P, T], *args: P.args, **_kwargs: P.kwargs
    ) -> T:
        if self._waiting[threads] >= most:
            raise Busy
        self._waiting[threads] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, function, *args)
        finally:
            self._waiting[threads] -= 1


def _ends(text: str) -> set[str]:
    return {text[:LOOKED_AT], text[-LOOKED_AT:]}


def _give_back() -> None:
    """Have the memory of each hash go back to the system: glibc learns to keep such pieces, 19 MiB for each thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 1024 * 1024)


def _give_way() -> None:
    """Let the loop go before this thread; on Linux each thread has a priority of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
