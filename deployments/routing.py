"""The request router of the Generators: of several that are free, one that has a wanted LoRA pair comes first."""

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class WarmFirstRouter(FIFOMixin, RequestRouter):
    """Ranks replicas by what the Dispatcher, the only caller, knows of them: its FleetMemory is the first argument."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Free replicas, best rank first; see `RequestRouter.choose_replicas`."""
        if pending_request is None:
            return [candidate_replicas]
        # Without it, Serve asks again at once, for as long as every replica is busy.
        pending_request.routing_context.should_backoff = True
        fleet = pending_request.args[0]
        fleet.saw(
            {replica.replica_id.unique_id: replica.routing_stats.get("resident", ()) for replica in candidate_replicas}
        )
        ranks: dict[int, list[RunningReplica]] = {}
        for replica in self.select_available_replicas(candidate_replicas):
            ranks.setdefault(fleet.rank(replica.replica_id.unique_id), []).append(replica)
        return [ranks[rank] for rank in sorted(ranks)]
