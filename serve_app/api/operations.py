"""Endpoints for operators: liveness and readiness probes, metrics of this node, and the state of the cluster."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Response

from serve_app.access.keys import Scope
from serve_app.api.dependencies import ModelsHealthDep, ReadinessDep, ServicesDep
from serve_app.api.guard import needs
from serve_app.api.model_health import Live
from serve_app.api.schemas.errors import UNAVAILABLE, ErrorBody, refusal
from serve_app.api.schemas.operations import (
    Alive,
    Cluster,
    GeneratorState,
    ModelCluster,
    Ready,
    RunningRender,
)
from serve_app.api.served import ServedModel
from serve_app.errors import ServiceError, ServiceNotReady
from serve_app.jobs.queue import Running
from serve_app.results import GeneratorRuntime

router = APIRouter(tags=["operations"])

_METRICS = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


@router.get("/health/live")
async def live() -> Alive:
    """Answer 200 while the process runs: for liveness probes. It checks nothing else, so no database restarts it."""
    return Alive()


@router.get("/health/ready", responses={503: {"model": Ready, "description": "What is accepted now would only wait."}})
async def ready(readiness: ReadinessDep, models_health: ModelsHealthDep, response: Response) -> Ready:
    """Return 200 while renders start, perhaps after a Generator was started for them: for readiness probes."""
    problem, live = await asyncio.gather(readiness.problem(), models_health.now())
    problem = problem or _away(live)
    if problem is None:
        return Ready(status="ready")
    response.status_code = problem.status
    return Ready(status="not_ready", problem=ErrorBody(**problem.body()["error"]))


def _away(live: Live) -> ServiceError | None:
    """Return what is missing: the job store, or the Dispatcher of a model."""
    if any(model is None for model in live.values()):
        return ServiceNotReady("the job store does not answer")
    idle = [name for name, model in live.items() if model is not None and not model.dispatches]
    if idle:
        return ServiceNotReady(f"no Dispatcher is alive for {', '.join(idle)}; it starts soon, or its log says why not")
    return None


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."},
        **refusal(503, "Ray's agent on this node does not answer."),
    },
)
@needs(Scope.ADMIN)
async def metrics(services: ServicesDep) -> Response:
    """Return the metrics of this node, which are all metrics of a cluster with one node. See docs/observability.md."""
    return Response(await services.node_metrics(), media_type=_METRICS)


@router.get("/v1/cluster", responses=UNAVAILABLE)
@needs(Scope.ADMIN)
async def cluster(services: ServicesDep) -> Cluster:
    """Return every Generator: its device and memory plan, the LoRA pairs that it has ready, and what it renders now."""
    models = await asyncio.gather(*(_model(served, services) for served in services.models.values()))
    return Cluster(models=list(models))


async def _model(served: ServedModel, services: ServicesDep) -> ModelCluster:
    queue = services.store.queue(served.card.id)
    fleet, running, load = await asyncio.gather(served.announcer.fleet(), queue.running(), queue.load())
    known = {} if fleet is None else fleet
    replicas = sorted({*known, *(render.replica for render in running)})
    return ModelCluster(
        model=served.card.id,
        dispatcher="unknown" if fleet is None else "alive",
        queued=load.queued.renders,
        generators=[_generator(replica, known.get(replica), running) for replica in replicas],
    )


def _generator(replica: str, found: GeneratorRuntime | None, running: Sequence[Running]) -> GeneratorState:
    renders = [
        RunningRender(
            request_id=render.request_id,
            index=render.index,
            attempt=render.attempt,
            steps_done=render.steps_done,
            steps=render.steps,
        )
        for render in running
        if render.replica == replica
    ]
    if found is None:  # the replica has just started, or has just died
        return GeneratorState(replica=replica, pairs=[], renders=renders)
    return GeneratorState(
        replica=replica,
        device=found.device,
        dtype=found.dtype,
        offload=found.offload,
        pristine=found.pristine,
        start=found.start,
        kernels=found.kernels,
        pairs=list(found.pairs),
        renders=renders,
    )
