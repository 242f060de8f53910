"""Several worker processes behind one address: started, watched, rolled over, never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog

# A worker that dies sooner than this after its start is started again more slowly each time.
STABLE_SECONDS = 5
LONGEST_WAIT_SECONDS = 10
READY = b"r"

log = structlog.get_logger("workers")


@dataclass(slots=True)
class Process:
    """A worker that runs, and our end of the line to it: it says when it is ready, and ends when we do."""

    process: asyncio.subprocess.Process
    line: socket.socket
    # It has ended, or another took its place and it is ending.
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def is_ready(self) -> bool:
        """Wait until the worker answers requests; False where it ended before."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.line, 1) == READY
        except OSError:
            return False

    def stop(self) -> None:
        """Have it finish what is in flight."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()


@dataclass(slots=True)
class Slot:
    """A place for one worker. Its sockets are ours: while no worker is there, connections wait in them."""

    sockets: Sequence[socket.socket]
    processes: list[Process] = field(default_factory=list)
    # Whether any worker answered here: one that never does is not worth another try.
    was_ready: bool = False
    # Held by whoever looks whether it is empty, and starts one.
    filling: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def serving(self) -> list[Process]:
        """Those whose place no other took."""
        return [process for process in self.processes if not process.is_over.is_set()]


class Parent:
    """Keeps a worker in each slot. `command` starts one, given the numbers of its sockets and of its line."""

    def __init__(self, command: Sequence[str], slots: Sequence[Sequence[socket.socket]]) -> None:
        self._command = command
        self._slots = [Slot(sockets) for sockets in slots]
        self._stopping = asyncio.Event()
        self._rolling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._exit_code = 0

    async def run(self) -> int:
        """Work until SIGTERM or SIGINT, or until no worker can start; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._keep(self._roll()))
        for slot in self._slots:
            self._keep(self._occupy(slot))
        await self._stopping.wait()
        processes: list[Process] = []
        for slot in self._slots:
            # Whoever starts one has it by then, and from now on nobody does.
            async with slot.filling:
                processes += slot.processes
            # Whoever comes now is refused, and waits for no worker.
            for listening in slot.sockets:
                listening.close()
        for process in processes:
            process.stop()
        await asyncio.gather(*(process.process.wait() for process in processes))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._exit_code

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _occupy(self, slot: Slot) -> None:
        """Keep one worker in `slot`, whatever happens to it."""
        loop, wait = asyncio.get_running_loop(), 0.0
        while not self._stopping.is_set():
            started_at = loop.time()
            async with slot.filling:
                process = None if slot.serving else await self._start(slot)
                is_there = bool(slot.serving)
            if process:
                slot.was_ready = await process.is_ready() or slot.was_ready
            code = 0
            while slot.serving and not self._stopping.is_set():
                # Where another takes its place while rolling over, that one is next.
                newest = slot.serving[-1]
                await newest.is_over.wait()
                code = newest.process.returncode or 0
            if self._stopping.is_set():
                return
            if not slot.was_ready and code > 0:
                # It never worked and ended by itself; trying again would only repeat what it said.
                self._exit_code = code
                self._stopping.set()
                return
            is_stable = loop.time() - started_at > STABLE_SECONDS
            wait = 0.0 if is_stable else min(max(0.1, wait * 2), LONGEST_WAIT_SECONDS)
            if is_there:
                log.error("a worker died and is started again", exit_code=code, wait_seconds=wait)
            await asyncio.sleep(wait)

    async def _leave(self, slot: Slot, process: Process) -> None:
        """Wait for a worker's end."""
        await process.process.wait()
        process.line.close()
        slot.processes.remove(process)
        process.is_over.set()

    async def _start(self, slot: Slot) -> Process | None:
        """A new worker in the slot; None while all are stopped, and where the system starts none now, for want of
        memory or of its program."""
        if self._stopping.is_set():
            return None
        try:
            process = await self._spawn(slot)
        except OSError as error:
            log.warning("a worker could not be started", error=error.strerror)
            return None
        slot.processes.append(process)
        self._keep(self._leave(slot, process))
        return process

    async def _spawn(self, slot: Slot) -> Process:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        numbers = [theirs.fileno(), *(listening.fileno() for listening in slot.sockets)]
        arguments = ["--inherit", ",".join(map(str, numbers))]
        try:
            with theirs:
                started = await asyncio.create_subprocess_exec(
                    *self._command, *arguments, pass_fds=numbers, stdin=asyncio.subprocess.DEVNULL
                )
        except OSError:
            ours.close()
            raise
        return Process(started, ours)

    async def _roll(self) -> None:
        """Put a new worker in each slot, one after the other; the old one goes when the new one answers."""
        async with self._rolling:
            for slot in self._slots:
                async with slot.filling:
                    old = slot.serving
                    new = await self._start(slot)
                is_ready = new and await new.is_ready()
                if self._stopping.is_set():
                    return
                if not is_ready:
                    log.error("a new worker did not start; the old one goes on")
                    continue
                slot.was_ready = True
                for process in old:
                    process.stop()
                    process.is_over.set()


class Line:
    """A worker's end of the line to its parent."""

    def __init__(self, number: int) -> None:
        self._line = socket.socket(fileno=number)
        self._line.setblocking(False)

    def say_ready(self) -> None:
        """This worker answers requests now; where the parent is gone, `is_over` tells."""
        with contextlib.suppress(OSError):
            self._line.send(READY)

    async def is_over(self) -> Literal[True]:
        """Return when the parent is gone, however it went."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_recv(self._line, 1)
        return True


async def watch(command: Sequence[str], slots: Sequence[Sequence[socket.socket]]) -> int:
    """Keep a worker in each slot until told to stop; the exit code."""
    return await Parent(command, slots).run()
