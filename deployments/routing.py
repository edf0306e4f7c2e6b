"""The request router of the Generators (LoRA affinity): a free replica with a wanted LoRA pair is preferred.

Ray Serve imports it by its name, in the process of each handle:

    RequestRouterConfig(request_router_class="deployments.routing:WarmFirstRouter")
"""

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from serve_app.results import GeneratorRuntime


class WarmFirstRouter(FIFOMixin, RequestRouter):
    """Ranks free replicas by what the Dispatcher knows about them.

    The Dispatcher is the only caller, and passes its FleetMemory as the first argument of `choose_replica`.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the free replicas in groups of equal rank, best first; see `RequestRouter.choose_replicas`."""
        if pending_request is None:
            return [candidate_replicas]
        # Without this, Serve asks again at once while every replica is busy, which occupies a core (busy waiting).
        pending_request.routing_context.should_backoff = True
        fleet = pending_request.args[0]
        fleet.saw(
            {replica.replica_id.unique_id: replica.routing_stats.get("resident", ()) for replica in candidate_replicas}
        )
        stats = {replica.replica_id.unique_id: replica.routing_stats.get("runtime") for replica in candidate_replicas}
        fleet.run_on({name: GeneratorRuntime(**runtime) for name, runtime in stats.items() if runtime})
        ranks: dict[int, list[RunningReplica]] = {}
        for replica in self.select_available_replicas(candidate_replicas):
            ranks.setdefault(fleet.rank(replica.replica_id.unique_id), []).append(replica)
        return [ranks[rank] for rank in sorted(ranks)]
