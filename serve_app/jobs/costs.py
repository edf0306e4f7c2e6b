"""Measured costs of renders, as moving averages in the store, so that they survive a restart."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, case, select

from serve_app.costs import CostKey, MeasuredCost
from serve_app.jobs.database import Upsert
from serve_app.jobs.needs import MeasuredNeed
from serve_app.jobs.tables import render_costs
from serve_app.spec import Recipe, Speed

_LONG_MEMORY = 10  # renders; the weight of older ones fades, so the average follows a change of hardware


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one render took on one deployment (the same model on the same kind of replica)."""

    deployment: str
    key: CostKey
    cost: MeasuredCost
    need: MeasuredNeed | None = None  # None if it was not measured


def read_costs(connection: Connection, deployment: str) -> Mapping[CostKey, MeasuredCost]:
    """Return the averages of that deployment."""
    found = connection.execute(select(render_costs).where(render_costs.c.deployment == deployment))
    return {
        CostKey(Recipe(row.recipe), row.guided, row.size_class, Speed(row.speed)): MeasuredCost(row.step_s, row.other_s)
        for row in found.all()
    }


def add_cost(connection: Connection, insert: Upsert, measurement: Measurement) -> None:
    """Add a measurement to the moving average of its key; `insert` is an INSERT into `render_costs`."""
    now, key, cost = render_costs.c, measurement.key, measurement.cost
    weight = case((now.samples < _LONG_MEMORY, 1.0 / (now.samples + 1)), else_=1.0 / _LONG_MEMORY)
    row = insert.values(
        deployment=measurement.deployment,
        recipe=key.recipe.value,
        speed=key.speed.value,
        guided=key.guided,
        size_class=key.size_class,
        step_s=cost.step_s,
        other_s=cost.other_s,
        samples=1,
    )
    connection.execute(
        row.on_conflict_do_update(
            index_elements=["deployment", "recipe", "speed", "guided", "size_class"],
            set_={
                "step_s": now.step_s + (cost.step_s - now.step_s) * weight,
                "other_s": now.other_s + (cost.other_s - now.other_s) * weight,
                "samples": now.samples + 1,
            },
        )
    )
