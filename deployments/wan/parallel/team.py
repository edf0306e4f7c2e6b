"""The team of ranks that render together: rank 0, the Generator's process, leads; the others repeat its work.

Every rank runs the same code on the same spec, so that their collectives match:

    with team.doing(Render(spec, inputs, mix)):  # rank 0 alone: tells the others
        with team.agreed():                      # all ranks: none goes on unless all can
            prepare()
        with team.sharing(mix, tokens, negative):
            denoise()

If one rank fails and the others do not know it, they wait in a collective, which cannot be ended safely. Then the team
is permanently broken: `doing` raises `TeamBroken` or, if rank 0 itself waits, its process ends. The Generator, or the
lease that expires, gives the render back to the queue, and a new Generator replaces this one.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Lock, Timer
from typing import Any

import torch

from deployments.pipeline import PipelineOptions
from deployments.wan.parallel.guidance import split_guidance
from deployments.wan.parallel.members import Members
from deployments.wan.parallel.mix import best_mix
from deployments.wan.parallel.sequence import SequenceSplit, branch_group
from deployments.wan.parallel.work import Answer, Start, Work
from deployments.wan.parallel.world import OtherRankFailed, World, open_rendezvous
from serve_app.results import Parallelism

logger = logging.getLogger("ray.serve.wan")

HANGS_AFTER_S = 600.0  # of one collective; no rank is ever so far behind the others
GRACE_S = 20.0  # for ranks that failed alike to say so, and for a render to be given back in good order
_LOADING_S = 3600.0  # for the others to load the base model after rank 0 has


class TeamBroken(RuntimeError):
    """A rank is gone or hangs; this process can render no more."""


class Team:
    """One rank alone: nothing is shared, and it waits for no other rank."""

    size = 1
    leads = True  # decodes the frames, and answers the Generator

    def mix(self, *, heads: int, tokens: int, guided: bool) -> Parallelism:
        """Return how the ranks share a denoising step."""
        return best_mix(self.size, heads=heads, tokens=tokens, guided=guided)

    @contextmanager
    def doing(self, work: Work) -> Iterator[None]:
        """Make the other ranks do `work`, which the block does on this rank.

        Raises:
            TeamBroken: the ranks are no longer synchronised; the process must be replaced.
            Exception: the error of another rank, if this one had none.
        """
        yield

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Run the block on every rank, and continue if it succeeded on all; see `World.agreed`."""
        yield

    @contextmanager
    def sharing(self, mix: Parallelism, tokens: int, negative: torch.Tensor | None) -> Iterator[None]:
        """Share the forward passes of the experts by `mix` while the block runs.

        `negative` is the embedding of the negative prompt; None if guidance is off.
        """
        yield

    def ready(self) -> None:
        """Wait until every rank has loaded the base model. Raise the error of a rank that could not."""

    def check(self) -> None:
        """Raise TeamBroken if a rank is gone."""

    def close(self) -> None:
        """End the other ranks."""


class Rank(Team):
    """One of several ranks."""

    leads = False

    def __init__(self, world: World) -> None:
        self._world = world
        self.size = world.size
        self._split: SequenceSplit | None = None
        self._experts: list[Any] = []
        self._token_timesteps = False

    def take(self, experts: Iterable[Any], *, token_timesteps: bool) -> None:
        """Share the forward passes of `experts` from now on; `token_timesteps`: every token has its own timestep."""
        self._experts = list(experts)
        self._split = SequenceSplit(self._experts, self._world)
        self._token_timesteps = token_timesteps

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """See `Team`."""
        with self._world.agreed():
            yield

    @contextmanager
    def sharing(self, mix: Parallelism, tokens: int, negative: torch.Tensor | None) -> Iterator[None]:
        """See `Team`."""
        if self._split is None:
            raise RuntimeError("take() comes first")
        with ExitStack() as sharing:
            sharing.enter_context(self._split.splitting(mix, tokens, token_timesteps=self._token_timesteps))
            if mix.guidance > 1 and negative is not None:
                sharing.enter_context(split_guidance(self._experts, branch_group(self._world, mix), negative))
            yield


class Leader(Rank):
    """Rank 0, with the others as its members."""

    leads = True

    def __init__(self, options: PipelineOptions, device: torch.device) -> None:
        """Start `options.gpus` - 1 further ranks, and wait until they have joined; loading comes after that."""
        self._lock = Lock()
        self._broken: str | None = None
        self._told = False  # the Generator knows that the team is broken, and acts
        self._working = 0  # counts works, so that a timer knows whether its own is still under way
        self._inside = False  # a block of `doing` runs
        store = open_rendezvous(options.gpus)
        starts = [
            Start(replace(options, device=_device_of(device, rank)), rank, store.port, HANGS_AFTER_S)
            for rank in range(1, options.gpus)
        ]
        self._members = Members(starts, on_failure=self._failed, on_end=self._ended)
        try:
            super().__init__(World(0, options.gpus, device, store, timeout_s=HANGS_AFTER_S))
        except BaseException:
            self._told = True
            self._members.kill()
            raise

    def ready(self) -> None:
        """See `Team`."""
        answers = self._members.answers(_LOADING_S)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        if len(answers) < self.size - 1:
            raise TeamBroken(self._broken or "a rank did not load the base model")

    def check(self) -> None:
        """See `Team`."""
        if self._broken is not None:
            self._told = True
            raise TeamBroken(self._broken)

    @contextmanager
    def doing(self, work: Work) -> Iterator[None]:
        """See `Team`."""
        self.check()
        self._working += 1
        self._inside = True
        self._members.tell(work)
        try:
            yield
        except BaseException as error:
            self._inside = False
            self._conclude(error)
            raise
        self._inside = False
        self._conclude(None)

    def _conclude(self, own: BaseException | None) -> None:
        """Wait for the others, and raise what this rank must raise instead of `own`; return if that is right."""
        answers = self._members.answers(GRACE_S)
        if len(answers) < self.size - 1:
            self._break("a rank hangs, or did not do what the others did")
            self.check()
        if own is None or isinstance(own, OtherRankFailed):
            cause = _cause(answers)
            if cause is not None:
                raise cause from own

    def _failed(self, reason: str) -> None:
        """Take note, in a member's thread, of an error there: this rank may wait for that one in a collective."""
        self._leave_unless_done(reason)

    def _ended(self, reason: str) -> None:
        """Take note, in a member's thread, that its process is gone."""
        logger.critical("%s", reason)
        self._break(reason)
        self._leave_unless_done(reason)

    def _break(self, reason: str) -> None:
        with self._lock:
            self._broken = self._broken or reason

    def _leave_unless_done(self, reason: str) -> None:
        """Leave the process after a time, unless the work under way ends, or its caller knows what is broken."""
        work = self._working

        def look() -> None:
            waits = self._inside and self._working == work
            if waits or (self._broken is not None and not self._told):
                leave(f"{reason}; rank 0 waits for it, or nobody asked since", self)

        timer = Timer(GRACE_S, look)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the other ranks, and give the process group back."""
        self._told = True
        self._members.kill()
        self._world.leave()

    def kill(self) -> None:
        """End the other ranks at once, and nothing else."""
        self._members.kill()


def leave(why: str, team: Leader) -> None:
    """End this process and all ranks of `team`, and let Serve start another one."""
    logger.critical("%s; this replica ends itself, so that another one takes its place", why)
    team.kill()
    logging.shutdown()
    os._exit(1)


def _cause(answers: list[Answer]) -> BaseException | None:
    """Return the first error that is not the echo of another one."""
    errors = [answer.error for answer in answers if answer.error is not None]
    return next((error for error in errors if not isinstance(error, OtherRankFailed)), None)


def _device_of(device: torch.device, rank: int) -> str:
    return device.type if device.type == "cpu" else f"{device.type}:{rank}"
