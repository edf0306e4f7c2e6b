"""The request router of the Generators: of several free replicas, one that has a wanted LoRA pair ready comes first.

Ray Serve imports it by its name, in the process of each handle:

    RequestRouterConfig(request_router_class="deployments.routing:WarmFirstRouter")
"""

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica

from serve_app.results import GeneratorRuntime


class WarmFirstRouter(FIFOMixin, RequestRouter):
    """Ranks free replicas by what the Dispatcher knows of them.

    The Dispatcher is the only caller, and passes its FleetMemory as the first argument of `choose_replica`.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the free replicas in groups of equal rank, best first; see `RequestRouter.choose_replicas`."""
        if pending_request is None:
            return [candidate_replicas]
        # Without this, Serve asks again at once for as long as every replica is busy, and keeps a core at work.
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
