"""The training loop: AdamW with a warm-up and a cosine decay, averaged weights, on a GPU one CUDA graph a step."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_WARM_UP = 200  # steps over which the learning rate rises
_LAST = 0.02  # of the learning rate, at the end of the decay
_CLIP = 1.0  # largest norm of the gradient
_REPORTS = 10  # lines of progress


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, which repeats exactly, or seconds, from which the steps are measured."""

    steps: int
    seconds: float | None = None


def train(
    name: str,
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    budget: Budget,
    *,
    rate: float,
    average: float = 0.998,
) -> int:
    """Minimise `loss` over `parameters`, which hold their moving average afterwards; return the steps that were made.

    `average` is the decay of that average. `loss` draws its own batch, and on a GPU must be free of synchronisation,
    as it is recorded once and replayed.
    """
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    step = _Step(chosen, loss, rate, average)
    steps, started = budget.steps, time.perf_counter()
    if budget.seconds is not None:
        steps = _steps_in(budget.seconds, step)
    for number in range(steps):
        value = step.run(_rate_at(number, steps) * rate)
        if (number + 1) % max(steps // _REPORTS, 1) == 0:
            print(f"{name}: step {number + 1} of {steps}, loss {value.item():.4f}, {_since(started)}", flush=True)  # noqa: T201 - progress on a terminal
    step.keep_average()
    return steps


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.0f} s"


def _rate_at(number: int, steps: int) -> float:
    warm_up = min(1.0, (number + 1) / min(_WARM_UP, max(steps // 10, 1)))
    decay = _LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * number / steps))
    return warm_up * decay


def _steps_in(seconds: float, step: "_Step") -> int:
    """Return how many steps fit; the few that measure it have a learning rate of zero."""
    step.run(0.0).item()
    measured, started = 20, time.perf_counter()
    for _ in range(measured):
        value = step.run(0.0)
    value.item()
    return max(int(seconds / (time.perf_counter() - started) * measured), 1)


class _Step:
    def __init__(self, parameters: list[nn.Parameter], loss: Callable[[], Tensor], rate: float, decay: float) -> None:
        self._parameters, self._loss, self._decay = parameters, loss, decay
        self._average = [parameter.detach().clone() for parameter in parameters]
        device = parameters[0].device
        self._rate = torch.tensor(rate, device=device)
        on_gpu = device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            parameters, lr=self._rate, betas=(0.9, 0.98), weight_decay=0.0, capturable=on_gpu, fused=True
        )
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu:
            self._record()

    def run(self, rate: float) -> Tensor:
        """Make one step at the learning rate `rate` and return its loss."""
        self._rate.fill_(rate)
        if self._graph is None:
            return self._once()
        self._graph.replay()
        return self._value

    def keep_average(self) -> None:
        for parameter, average in zip(self._parameters, self._average, strict=True):
            parameter.data.copy_(average)

    def _once(self) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        value = self._loss()
        value.backward()  # type: ignore[no-untyped-call] # torch's own stub
        nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list[Tensor](self._parameters), 1 - self._decay)
        return value.detach()

    def _record(self) -> None:
        """Compile and warm up on a side stream at a learning rate of zero, then record (PyTorch's recipe)."""
        self._rate.zero_()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch's own stub
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._once()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._value = self._once()
