"""Step cache (first-block cache): a pass of an expert that would change little reuses what its blocks did before.

The first block runs in every pass. If what it adds differs by less than a threshold from what it added when all blocks
ran last, the others are skipped and what they added then is added again. The idea is that of FirstBlockCache in
diffusers, whose hooks sit inside the blocks that torch.compile compiles; here, the compiled blocks stay as they are.

Example:
    cache = StepCache([pipe.transformer, pipe.transformer_2], threshold=0.1)
    with cache.in_place():
        ...  # one render
    cache.reused  # passes that ran one block
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_TEXT = "encoder_hidden_states"


@dataclass(frozen=True, slots=True)
class _Memory:
    """What one branch of guidance did when all blocks ran last; tensors are [batch, tokens, channels]."""

    first: torch.Tensor  # what the first block added
    rest: torch.Tensor  # what the others added


class StepCache:
    """The cache of one render. The experts share nothing, so it starts empty when they are swapped."""

    def __init__(self, experts: Iterable[Any], threshold: float) -> None:
        """`threshold` is the relative L1 distance below which a change counts as the same, above 0 and below 1."""
        self._experts = list(experts)
        self._threshold = threshold
        self._caches = [_CachedBlocks(expert.blocks, threshold) for expert in self._experts]

    @property
    def reused(self) -> int:
        """Return the passes that ran the first block alone."""
        return sum(cache.reused for cache in self._caches)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the cache decide which transformer blocks run, while the context is open."""
        hooks = []
        for expert, cache in zip(self._experts, self._caches, strict=True):
            hooks.append(expert.register_forward_pre_hook(cache.note_branch, with_kwargs=True))
            expert.blocks = torch.nn.ModuleList([cache])
        try:
            yield
        finally:
            for expert, cache, hook in zip(self._experts, self._caches, hooks, strict=True):
                expert.blocks = cache.blocks
                hook.remove()


class _CachedBlocks(torch.nn.Module):
    """Stands for all blocks of one expert."""

    def __init__(self, blocks: torch.nn.ModuleList, threshold: float) -> None:
        super().__init__()
        self.blocks = blocks
        self.reused = 0
        self._threshold = threshold
        self._branch = 0
        self._known: dict[int, _Memory] = {}  # by branch

    def note_branch(self, _expert: Any, _args: Sequence[Any], named: dict[str, Any]) -> None:
        """Note which branch of guidance runs now: the pipeline passes the same tensor of each prompt in all steps."""
        self._branch = named[_TEXT].data_ptr()

    def forward(self, hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        """Return what all blocks make of `hidden`, or about that."""
        first, *rest = self.blocks
        after_first = first(hidden, *others)
        added = after_first - hidden
        known = self._known.get(self._branch)
        if known is not None and _distance(added, known.first) < self._threshold:
            self.reused += 1
            reused: torch.Tensor = after_first + known.rest
            return reused
        last = after_first
        for block in rest:
            last = block(last, *others)
        self._known[self._branch] = _Memory(added, last - after_first)
        made: torch.Tensor = last
        return made


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the L1 distance relative to `other`; infinite for another shape."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().mean() / other.abs().mean())
