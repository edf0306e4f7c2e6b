"""Supervision of the other ranks of a Generator: processes with a pipe each, which end with the Generator's own.

Example:
    members = Members(starts, on_failure=logger.error, on_end=logger.error)  # three other ranks
    members.tell(Probe())
    members.answers(timeout_s=20)  # [Answer(None), Answer(None), Answer(None)]
    members.kill()
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from deployments.wan.parallel.work import Answer, Start, Work

logger = logging.getLogger("ray.serve.wan")

_MODULE = "deployments.wan.member"


class Members:
    """The processes of ranks 1 and up."""

    def __init__(
        self, starts: list[Start], *, on_failure: Callable[[str], None], on_end: Callable[[str], None]
    ) -> None:
        """Start a process for each of `starts`.

        `on_failure` hears of each error that a member answers with, `on_end` of a member whose process is gone; both in
        a thread of their own.
        """
        self._on_failure = on_failure
        self._on_end = on_end
        self._closed = False
        self._members = [_Member(start) for start in starts]
        for member in self._members:
            Thread(target=self._hear, args=(member,), name=f"rank-{member.rank}", daemon=True).start()

    def tell(self, work: Work) -> None:
        """Send `work` to every member. The thread that listens to a member notices if its process is gone."""
        for member in self._members:
            try:
                member.pipe.send(work)
            except OSError:
                logger.warning("rank %d cannot be reached", member.rank)

    def answers(self, timeout_s: float) -> list[Answer]:
        """Return the next answer of each member; fewer if one is gone, or does not answer within `timeout_s`."""
        until = monotonic() + timeout_s
        answers = []
        for member in self._members:
            try:
                answer = member.inbox.get(timeout=max(0.0, until - monotonic()))
            except Empty:
                break
            if answer is None:
                break
            answers.append(answer)
        return answers

    def kill(self) -> None:
        """End all members at once, even if they hang."""
        self._closed = True
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.wait()
            member.pipe.close()

    def _hear(self, member: "_Member") -> None:
        try:
            while True:
                answer: Answer = member.pipe.recv()
                member.inbox.put(answer)
                if answer.error is not None:
                    self._on_failure(f"rank {member.rank} failed with {type(answer.error).__name__}: {answer.error}")
        except (EOFError, OSError):
            if not self._closed:
                self._on_end(f"the process of rank {member.rank} ended with status {member.process.wait()}")
            member.inbox.put(None)


class _Member:
    """One process, and this end of its pipe."""

    def __init__(self, start: Start) -> None:
        self.rank = start.rank
        self.inbox: SimpleQueue[Answer | None] = SimpleQueue()  # None: no more will come
        self.pipe, theirs = Pipe()
        # As this process finds its modules, which Ray may have set up.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(  # noqa: S603 - every argument is ours
            [sys.executable, "-m", _MODULE, str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment
        )
        theirs.close()
        self.pipe.send(start)


def pipe_of(argument: str) -> "Connection[Any, Any]":
    """Return the other end of the pipe, in a member's process: first a Start comes, then Work, and Answers go."""
    return Connection(int(argument))
