"""The process of a further rank (not rank 0) of a Generator: loads the model, and repeats the work of rank 0.

    python -m deployments.wan.member FD  # FD: the file descriptor of the pipe to rank 0, see `parallel.members`

It ends at once when the pipe is closed, because then rank 0 is gone.
"""

import logging
import os
import sys
from contextlib import closing
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch

from deployments.wan.loading import settle_cpu
from deployments.wan.parallel.members import pipe_of
from deployments.wan.parallel.team import Rank
from deployments.wan.parallel.work import Answer, ChangePlan, LeaveGpu, Probe, Render, Start, Work
from deployments.wan.parallel.world import OtherRankFailed, World, reach_rendezvous
from deployments.wan.runtime import WanRuntime

logger = logging.getLogger("ray.serve.wan")


def main() -> None:
    """Join, load, and work until rank 0 is gone."""
    pipe = pipe_of(sys.argv[1])
    start: Start = pipe.recv()
    inbox: SimpleQueue[Work] = SimpleQueue()
    Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
    with closing(pipe):
        try:
            runtime = _load(start)
        except BaseException as error:
            pipe.send(Answer.failed(error))
            raise
        pipe.send(Answer())
        while True:
            pipe.send(_answer(runtime, inbox.get(), start.rank))


def _load(start: Start) -> WanRuntime:
    device = torch.device(start.options.device)
    if device.type == "cpu":
        settle_cpu()
    store = reach_rendezvous(start.port, start.options.gpus)
    world = World(start.rank, start.options.gpus, device, store, timeout_s=start.timeout_s)
    return WanRuntime.of_team(start.options, Rank(world))


def _answer(runtime: WanRuntime, work: Work, rank: int) -> Answer:
    try:
        _do(runtime, work)
    except Exception as error:
        if not isinstance(error, OtherRankFailed):
            logger.exception("rank %d failed", rank)
        return Answer.failed(error)
    return Answer()


def _do(runtime: WanRuntime, work: Work) -> None:
    match work:
        case Render(spec, inputs, mix):
            runtime.take_part(spec, inputs, mix)
        case LeaveGpu():
            runtime.memory.leave_gpu()
        case ChangePlan(plan):
            runtime.memory.change_plan(plan)
        case Probe():
            runtime.probe()


def _receive(pipe: "Connection[Any, Any]", inbox: "SimpleQueue[Work]") -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # also out of a collective that will never end


if __name__ == "__main__":
    main()
