"""Hysteresis between memory plans: a leaner plan at once if a render does not fit, a faster one after some that would.

Example:
    chooser = PlanChooser(demand, needs, first=key)
    plan = chooser.before(key)       # the plan to render under
    leaner = chooser.ran_out(key)    # after it ran out of memory; None: there is no other
"""

from collections.abc import Mapping
from dataclasses import replace

from deployments.wan.memory.needs import Needs
from deployments.wan.memory.planner import FROM_FASTEST, Barred, Demand, MemoryPlan, Need, holds, make_plan, predicted
from serve_app.needs import NeedKey
from serve_app.settings import OffloadMode, PristineMode

# Renders in a row that must fit under a faster plan before it is taken: changing plans moves up to 57 GB, which may
# take longer than the faster plan saves in one render.
PATIENCE = 3


class PlanChooser:
    """Keeps the plan in effect, what has run out of memory, and how many renders in a row a faster plan would hold."""

    def __init__(self, demand: Demand, needs: Needs, first: NeedKey) -> None:
        """Plan for a render of the key `first`. Raise ConfigurationInvalid as `make_plan` does."""
        self._demand = demand
        self._needs = needs
        self._measured: dict[NeedKey, int] = {}
        self._ran_out: list[tuple[OffloadMode, NeedKey]] = []
        self._copies_ran_out: list[NeedKey] = []
        self._could_be_faster = 0  # renders in a row
        self.current: MemoryPlan = make_plan(demand, Need(needs.bytes(first)))

    def learn(self, measured: Mapping[NeedKey, int]) -> None:
        """Take peaks of activations into account, in bytes in tensors; of each key the largest counts."""
        for key, peak in measured.items():
            self._measured[key] = max(peak, self._measured.get(key, 0))

    def before(self, key: NeedKey, adapters: int = 0, float8: int = 0) -> MemoryPlan:
        """Return the plan for a render, which is in effect from now on.

        Args:
            key: of the render.
            adapters: bytes of those that act beside the weights.
            float8: bytes of the copies of weights that a render with this key may make.
        """
        need, barred = self._need(key, adapters, float8), self._barred(key)
        best = make_plan(self._demand, need, barred)
        if not holds(self._demand, self.current, need, barred):
            self._could_be_faster = 0
            self.current = best
        elif best.slowness < self.current.slowness:
            self._could_be_faster += 1
            if self._could_be_faster >= PATIENCE:
                self._could_be_faster = 0
                self.current = best
        else:
            self._could_be_faster = 0
        self.current = predicted(self._demand, self.current, need)
        return self.current

    def take(self, plan: MemoryPlan) -> None:
        """Put `plan` into effect: `ran_out` returned it, or another rank has chosen it."""
        self.current = plan

    def copies_ran_out(self, key: NeedKey, originals: PristineMode) -> None:
        """Record that copies on the GPU were given up for a render, and originals are elsewhere now."""
        self._copies_ran_out.append(key)
        self._could_be_faster = 0
        self.current = self.current.without_copies(originals)

    def ran_out(self, key: NeedKey, adapters: int = 0, float8: int = 0) -> MemoryPlan | None:
        """Return the plan to go to when the current one ran out of memory for a render; None if none is leaner.

        From now on the mode counts as too small for this size and for larger ones.
        """
        before = self.current
        self._ran_out.append((before.offload, key))
        self._could_be_faster = 0
        leaner = make_plan(self._demand, self._need(key, adapters, float8), self._barred(key))
        slower = FROM_FASTEST.index(leaner.offload) > FROM_FASTEST.index(before.offload)
        if self._demand.free.gpu is None or not slower:
            return None
        return replace(leaner, reason=f"out of memory with {before.offload.value} ({before.reason})")

    def fits(self, key: NeedKey) -> bool:
        """Return whether some plan probably holds a render of that key; False if nothing tells."""
        gpu = self._demand.free.gpu
        need, barred = self._need(key), self._barred(key).modes
        left = [mode for mode in self._demand.candidates if mode not in barred]
        return gpu is not None and any(self._demand.weights.on_gpu(mode) + need.under(mode) <= gpu for mode in left)

    def _need(self, key: NeedKey, adapters: int = 0, float8: int = 0) -> Need:
        return Need(self._needs.bytes(key, self._measured), adapters, float8)

    def _barred(self, key: NeedKey) -> Barred:
        """Return what ran out of memory for a render of the same or a smaller need, by the formula alone."""
        size = self._needs.in_tensors(key)
        return Barred(
            frozenset(mode for mode, failed in self._ran_out if self._needs.in_tensors(failed) <= size),
            any(self._needs.in_tensors(failed) <= size for failed in self._copies_ran_out),
        )
