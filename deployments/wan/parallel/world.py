"""The process group (torch.distributed) of one Generator's ranks: collectives, device meshes and votes.

NCCL carries tensors between GPUs, gloo everything else. All ranks are on one node, so all sockets are on loopback.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # torch adds them at import
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from serve_app.results import Parallelism

HOST = "127.0.0.1"
_LOOPBACK = "lo"


class OtherRankFailed(RuntimeError):
    """Another rank could not go on, so this one does not, either."""


def open_rendezvous(size: int) -> TCPStore:
    """Return the store through which `size` ranks find each other, on a free port of this host."""
    return TCPStore(HOST, 0, size, is_master=True, wait_for_workers=False)


def reach_rendezvous(port: int, size: int) -> TCPStore:
    """Return the store that rank 0 has opened on `port`."""
    return TCPStore(HOST, port, size, is_master=False)


class World:
    """One rank among others. A process can be in one at a time."""

    def __init__(self, rank: int, size: int, device: torch.device, store: Store, *, timeout_s: float) -> None:
        """Join, and wait for the others. A collective that takes longer than `timeout_s` fails on every rank."""
        self.rank = rank
        self.size = size
        self.device = device
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, _LOOPBACK)
        if device.type == "cuda":
            torch.cuda.set_device(device.index or 0)
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s))
        self.mesh = cache(self._mesh)  # each mesh has process groups of its own

    def _mesh(self, mix: Parallelism) -> DeviceMesh:
        """Return the ranks as a mesh of guidance x ring x ulysses. Every rank must ask, in the same order."""
        return init_device_mesh(
            self.device.type, (mix.guidance, mix.ring, mix.ulysses), mesh_dim_names=("guidance", "ring", "ulysses")
        )

    def all_can(self, this_can: bool) -> bool:
        """Vote: return whether every rank can go on. Blocks until all have voted."""
        votes = torch.tensor([int(this_can)])
        dist.all_reduce(votes, op=dist.ReduceOp.MIN)
        return bool(votes.item())

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Run the block on every rank, and continue if it succeeded on all, so that no rank waits for a failed one.

        Raises:
            OtherRankFailed: it raised on another rank, and not here.
        """
        try:
            yield
        except BaseException:
            self.all_can(False)
            raise
        if not self.all_can(True):
            raise OtherRankFailed("another rank of this Generator failed")

    def leave(self) -> None:
        """Give the process group back."""
        dist.destroy_process_group()
