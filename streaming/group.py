"""Several processes for one tiles flow, as a Bytewax cluster: a leader, which decides, and members, which follow.

They live and die together. A process that fails says so and waits for its end: were it to end by itself, Bytewax would
end the others with errors that hide the reason. The leader ends all, members end when the leader is gone, and whoever
keeps the leader running starts them anew. The protocol asks for nothing else: a process that goes on for a while writes
under its own generation.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import msgspec

from rtml.define.written import Kept
from rtml.errors import UnavailableError
from streaming.broker import RestartRequiredError
from streaming.place import Place

log = logging.getLogger(__name__)

RESTART = 75
"""The exit code that asks for a new process (`EX_TEMPFAIL`)."""
CRASHED = 1
HOST = "127.0.0.1"
PANIC = "PanicException"
"""What Bytewax raises in a process whose peer is gone; the class cannot be imported."""
LINGER = 1.0
"""Seconds in which a process that lost another one is ended anyway, and has nothing to say."""

Result = TypeVar("Result")


class Orders(msgspec.Struct, frozen=True):
    """What the leader decided, and tells each member: a run never has two opinions of what is written."""

    process: int
    addresses: tuple[str, ...]
    source: Kept
    versions: tuple[str, ...]
    """The names of those that are written."""
    deployed: bytes | None

    @property
    def place(self) -> Place:
        """Which process it is for."""
        return Place(self.process, len(self.addresses))


class Leader:
    """The first process of a group; it starts the others, and ends them."""

    place: Place

    def __init__(self, count: int, command: tuple[str, ...]) -> None:
        """Start `count − 1` members by a command; they wait for their orders."""
        self.place = Place(0, count)
        self.addresses = free_addresses(count)
        self._ending = threading.Lock()
        self._members = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count - 1)
        ]
        for process, member in enumerate(self._members, 1):
            threading.Thread(target=self._watch, args=(process, member), daemon=True).start()

    def order(self, source: Kept, versions: tuple[str, ...], deployed: bytes | None) -> None:
        """Tell the members what to do.

        Raises:
            UnavailableError: one is dead already.
        """
        for process, member in enumerate(self._members, 1):
            orders = Orders(process, self.addresses, source, versions, deployed)
            try:
                assert member.stdin is not None
                member.stdin.write(msgspec.json.encode(orders) + b"\n")
                member.stdin.flush()
            except BrokenPipeError:
                raise UnavailableError(f"process {process} of {self.place.count} died while it was started") from None

    def end(self, code: int) -> NoReturn:
        """End all processes, this one with an exit code."""
        with self._ending:  # never given back: the first reason is the one that counts
            for member in self._members:
                member.kill()
            sys.stderr.flush()
            os._exit(code)

    def _watch(self, process: int, member: subprocess.Popen[bytes]) -> None:
        """Wait for a member to say that it cannot go on, or to die; either is the end of all."""
        assert member.stdout is not None
        said = member.stdout.readline().strip()
        if not said.isdigit():
            log.error("process %d of %d died: all of them start anew", process, self.place.count)
            self.end(CRASHED)
        self.end(int(said))


class Member:
    """Any other process of a group."""

    def __init__(self) -> None:
        """Wait for orders; end at once when the leader is gone, now or later.

        What is printed goes to where errors go: standard output is for the leader.
        """
        self._report = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        text = sys.stdin.buffer.readline()
        if not text:
            os._exit(CRASHED)
        self.orders = msgspec.json.decode(text, type=Orders)
        self.place, self.addresses = self.orders.place, self.orders.addresses
        threading.Thread(target=self._follow, daemon=True).start()

    def end(self, code: int) -> NoReturn:
        """Have the leader end all processes; it then exits with a code."""
        sys.stderr.flush()
        os.write(self._report, f"{code}\n".encode())
        threading.Event().wait()
        raise AssertionError("nobody wakes it")

    @staticmethod
    def _follow() -> None:
        sys.stdin.buffer.read()
        os._exit(CRASHED)


Process = Leader | Member


@contextmanager
def ending(process: Process) -> Iterator[None]:
    """End the group if the block fails, having said why: out of a cluster's flow no error gets otherwise."""
    try:
        yield
    except RestartRequiredError as error:
        log.warning("%s", error)
        process.end(RESTART)
    except StopIteration:
        raise
    except BaseException as error:
        place = process.place
        if type(error).__name__ == PANIC:
            time.sleep(LINGER)
            log.error("process %d of %d lost another one: all of them start anew", place.process, place.count)
        else:
            log.exception("process %d of %d failed: all of them start anew", place.process, place.count)
        process.end(CRASHED)


def ended_by(process: Process, call: Callable[..., Result]) -> Callable[..., Result]:
    """Return a call that ends the group if it fails."""

    def called(*arguments: object, **named: object) -> Result:
        with ending(process):
            return call(*arguments, **named)

    return called


def free_addresses(count: int) -> tuple[str, ...]:
    """Return addresses of this machine on which nothing listens."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    found = tuple(f"{HOST}:{probe.getsockname()[1]}" for probe in probes)
    for probe in probes:
        probe.close()
    return found
