"""Guidance parallelism: the two passes of classifier-free guidance run at the same time, each on its own ranks.

WanPipeline calls an expert twice a step, with the prompt and then with the negative prompt, on the same latents. Here
the first call computes one of the two, whichever this rank has, and exchanges it; the second call computes nothing.
The arithmetic is that of one rank. So the result is equal, bit for bit, if both ranks run the same kernels, as in
`exact`. In `fast` each rank compiles its own kernels, which may round otherwise.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist

_TEXT = "encoder_hidden_states"

Forward = Callable[..., tuple[torch.Tensor]]


@contextmanager
def split_guidance(experts: Iterable[Any], group: dist.ProcessGroup, negative: torch.Tensor) -> Iterator[None]:
    """Run the passes of `experts` side by side on the two ranks of `group` while the block runs.

    `negative` is the embedding of the negative prompt, which the group's second rank computes with.
    """
    with ExitStack() as undo:
        for expert in experts:
            whole = expert.forward
            expert.forward = _Exchanging(whole, group, negative)
            undo.callback(setattr, expert, "forward", whole)
        yield


class _Exchanging:
    """The forward pass of an expert, alternately computed and remembered."""

    def __init__(self, forward: Forward, group: dist.ProcessGroup, negative: torch.Tensor) -> None:
        self._forward = forward
        self._group = group
        self._negative = negative
        self._negative_pass: torch.Tensor | None = None  # of the step that runs

    def __call__(self, **inputs: Any) -> tuple[torch.Tensor]:
        if self._negative_pass is not None:
            known, self._negative_pass = self._negative_pass, None
            return (known,)
        if dist.get_rank(self._group) > 0:
            inputs = inputs | {_TEXT: self._negative.to(inputs[_TEXT].dtype)}
        (own,) = self._forward(**inputs)
        passes = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(2)]
        dist.all_gather(passes, own.contiguous(), group=self._group)
        positive, self._negative_pass = passes
        return (positive,)
