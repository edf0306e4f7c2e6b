"""Context parallelism (Ulysses, ring): the tokens of one forward pass are split between ranks.

diffusers' own hooks and attention functions split, exchange and gather the tokens. They are applied here and not by
`enable_parallelism`, which cannot be undone and does not run on a CPU (0.42.1): each render may be shared differently.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.transformers.transformer_wan import WanAttention

from deployments.wan.kernels import register_flash_attention_on_cpu
from deployments.wan.parallel.world import World
from serve_app.results import Parallelism

# Parts of diffusers' plan for Wan: what splits timesteps, if every token has one; what splits the tokens, with a
# hook on a block, which torch.compile cannot trace; and what gathers the result.
_WHOLE_EXPERT = ""
_FIRST_BLOCK = "blocks.0"
_RESULT = "proj_out"
_GATHER_UNEVEN = "wan_gather_uneven"


class SequenceSplit:
    """Splits the tokens of a pipeline's experts between the ranks of a world."""

    def __init__(self, experts: Iterable[Any], world: World) -> None:
        self._experts = list(experts)
        self._world = world
        self._config = cache(self._new_config)  # each has process groups of its own, and compiled code knows it

    @contextmanager
    def splitting(self, mix: Parallelism, tokens: int, *, token_timesteps: bool) -> Iterator[None]:
        """Split `tokens` tokens by `mix` while the block runs, into parts that may differ by one token."""
        if mix.sequence == 1:
            yield
            return
        config = self._config(mix, even=mix.is_even(tokens))
        with ExitStack() as undo:
            for expert in self._experts:
                undo.enter_context(_splitting(expert, config.context_parallel_config, tokens, token_timesteps))
                for module in expert.modules():
                    if isinstance(module, WanAttention):
                        undo.enter_context(_attending(module.processor, config))
            yield

    def _new_config(self, mix: Parallelism, *, even: bool) -> Any:
        mesh = self._world.mesh(mix)["ring", "ulysses"]
        context = ContextParallelConfig(
            ring_degree=mix.ring,
            ulysses_degree=mix.ulysses,
            ulysses_anything=not even and mix.ring == 1,
            ring_anything=not even and mix.ulysses == 1,
            mesh=mesh,
        )
        config = ParallelConfig(context_parallel_config=context)
        config.setup(self._world.rank, self._world.size, self._world.device, mesh=mesh)
        return config


@contextmanager
def _splitting(expert: Any, config: Any, tokens: int, token_timesteps: bool) -> Iterator[None]:
    """Make the expert split its tokens and gather its result while the block runs."""
    group = config._flattened_mesh.get_group()
    uneven = tokens % dist.get_world_size(group) > 0
    left_out = {_FIRST_BLOCK, *(() if token_timesteps else (_WHOLE_EXPERT,)), *((_RESULT,) if uneven else ())}
    plan = {module: split for module, split in expert._cp_plan.items() if module not in left_out}
    apply_context_parallel(expert, config, plan)
    registry = HookRegistry.check_if_exists_or_initialize(expert.proj_out)
    if uneven:
        registry.register_hook(_GatherUneven(group, tokens), _GATHER_UNEVEN)
    splitting = expert.patch_embedding.register_forward_hook(_split_tokens(group))
    try:
        yield
    finally:
        splitting.remove()
        remove_context_parallel(expert, plan)
        if uneven:
            registry.remove_hook(_GATHER_UNEVEN)


def _split_tokens(group: dist.ProcessGroup) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
    """Return a hook that leaves each rank its part of what the patch embedding gives."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)

    def split(_module: Any, _inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        # [1, channels, frames, rows, columns] to [1, channels, tokens, 1, 1]: the expert flattens it in any case.
        return embedded.flatten(2).tensor_split(ranks, dim=2)[rank][..., None, None]

    return split


class _GatherUneven(ModelHook):
    """Gathers parts that differ by one token, which gloo cannot do, and diffusers leaves to it."""

    def __init__(self, group: dist.ProcessGroup, tokens: int) -> None:
        super().__init__()
        self._group = group
        ranks = dist.get_world_size(group)
        self._sizes = [tokens // ranks + (rank < tokens % ranks) for rank in range(ranks)]  # as `tensor_split` has it

    def post_forward(self, _module: Any, output: torch.Tensor) -> torch.Tensor:
        """Return [1, tokens, channels] of [1, this rank's tokens, channels]."""
        padded = torch.nn.functional.pad(output, (0, 0, 0, self._sizes[0] - output.shape[1]))
        parts = [torch.empty_like(padded) for _ in self._sizes]
        dist.all_gather(parts, padded, group=self._group)
        return torch.cat([part[:, :size] for part, size in zip(parts, self._sizes, strict=True)], dim=1)


@contextmanager
def _attending(processor: Any, config: Any) -> Iterator[None]:
    """Make an attention layer exchange its tensors with the other ranks while the block runs."""
    chosen = processor._attention_backend
    processor._parallel_config = config
    if chosen is None and config.context_parallel_config.ring_degree > 1:
        # A ring joins partial results by their log-sum-exp, which PyTorch's own choice of kernel does not give.
        processor._attention_backend = AttentionBackendName._NATIVE_FLASH
        if config.context_parallel_config._device.type == "cpu":
            register_flash_attention_on_cpu()
    try:
        yield
    finally:
        processor._attention_backend = chosen
        processor._parallel_config = None


def branch_group(world: World, mix: Parallelism) -> dist.ProcessGroup:
    """Return the two ranks, this one and another, that have the same tokens and different branches of guidance."""
    return world.mesh(mix)["guidance"].get_group()
