"""Scheduling policies on a simulated fleet of 1,000 replicas: waits by tenant, cold loads, makespan.

    python -m tests.benchmarks.fleet_simulation [--renders 100000] [--replicas 1000] [--loads 0.7 0.95 1.1]

Three tenants ask for LoRA pairs, of which each replica keeps eight ready; two do so steadily, the third all at once
five times; see `tests/benchmarks/fleet/workload.py`. The load is the seconds of rendering that are asked for, over
those that the replicas have until the last request. "rendering" is the share of the replicas' time until the last
render ended; "passed" is the longest that a render waited after a younger one of its line was started. Each quiet
tenant is also simulated alone, with the same renders and a third of the replicas. Prints tables and, last, one line of
JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from deployments.scheduling import Rules
from serve_app.settings import Settings
from tests.benchmarks.fleet.figures import Figures, figures, percentiles
from tests.benchmarks.fleet.policies import ConsistentHashing, Fifo, Multiplex, Ours, Policy
from tests.benchmarks.fleet.replicas import Replicas
from tests.benchmarks.fleet.simulation import Simulation, Start
from tests.benchmarks.fleet.workload import QUIET, TENANTS, Work, workload

OURS = "ours"
BASELINES: dict[str, Callable[[Replicas], Policy]] = {
    "fifo": Fifo,
    "multiplex": Multiplex,
    "hashing": ConsistentHashing,
}
_TINY_S = 5.0  # waits below it, next to renders of two minutes, have no meaningful ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=int, default=100_000)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 0.95, 1.1])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--patience-s", type=float, default=Settings.model_fields["affinity_patience_s"].default)
    args = parser.parse_args()
    began = time.perf_counter()
    results = [at_load(args, load) for load in args.loads]
    summary = json.dumps({"wall_s": round(time.perf_counter() - began), **vars(args), "results": results})
    print(json.dumps(json.loads(summary, parse_float=lambda digits: round(float(digits), 3))))


def at_load(args: argparse.Namespace, load: float) -> dict[str, object]:
    """Return every policy with the same work."""
    work = workload(args.renders, args.replicas, load, args.seed)
    longest = max(item.seconds for item in work)
    print(
        f"\nload {load:g}, patience {args.patience_s:g} s, longest render {longest:,.0f} s; waits are p50/p95/p99, in s"
    )
    print(f"{'':10}{'cold':>7}{'rendering':>11}{'makespan':>10}{'passed':>8}{'longest':>9}", end="")
    print("".join(f"{tenant:>20}" for tenant in TENANTS))
    found: dict[str, Figures] = {}
    for name in (OURS, *BASELINES):
        found[name] = figures(simulate(work, args.replicas, name, args), args.replicas)
        print_row(name, found[name])
    return {
        "load": load,
        "longest_render": longest,
        "policies": {name: asdict(row) for name, row in found.items()},
        "alone": [beside_alone(tenant, work, args, found[OURS]) for tenant in QUIET],
    }


def simulate(work: Sequence[Work], count: int, name: str, args: argparse.Namespace) -> list[Start]:
    replicas = Replicas(count, args.seed)
    rules = Rules(args.patience_s, Settings.model_fields["age_bound_s"].default)
    policy = Ours(replicas, rules) if name == OURS else BASELINES[name](replicas)
    return Simulation(replicas, policy).run(work)


def print_row(name: str, found: Figures) -> None:
    print(f"{name:10}{found.cold:>7.3f}{found.rendering:>11.3f}{found.makespan:>10,.0f}", end="")
    print(f"{found.longest_after_passed:>8,.0f}{found.longest_wait:>9,.0f}", end="")
    print("".join(f"{'/'.join(f'{wait:,.0f}' for wait in found.waits[tenant]):>20}" for tenant in TENANTS), flush=True)


def beside_alone(tenant: str, work: Sequence[Work], args: argparse.Namespace, shared: Figures) -> dict[str, object]:
    """Return what the tenant's 95th percentile is, and would be with its fair share of the replicas to itself."""
    own = [item for item in work if item.render.tenant == tenant]
    alone = percentiles(simulate(own, args.replicas // len(TENANTS), OURS, args), tenant)[1]
    beside = shared.waits[tenant][1]
    ratio = beside / alone if max(beside, alone) >= _TINY_S and alone > 0 else None
    verdict = f"ratio {ratio:.2f}" if ratio is not None else "too short for a ratio"
    print(f"  {tenant}: p95 {beside:,.1f} s, alone on its share {alone:,.1f} s, {verdict}", flush=True)
    return {"tenant": tenant, "p95": beside, "p95_alone": alone, "ratio": ratio}


if __name__ == "__main__":
    main()
