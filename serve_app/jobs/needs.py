"""Measured peaks of GPU memory (activations) in the store, so that a new replica plans with what others have seen."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, case, select

from serve_app.jobs.database import Upsert
from serve_app.jobs.tables import render_needs
from serve_app.needs import NeedKey
from serve_app.spec import Speed


@dataclass(frozen=True, slots=True)
class MeasuredNeed:
    """The GPU memory that one render needed besides weights."""

    key: NeedKey
    bytes: int


def read_needs(connection: Connection, deployment: str) -> Mapping[NeedKey, int]:
    """Return the largest measurement of each key on that deployment, in bytes."""
    found = connection.execute(select(render_needs).where(render_needs.c.deployment == deployment))
    return {NeedKey(Speed(row.speed), row.pixel_class, row.num_frames): row.bytes for row in found.all()}


def add_need(connection: Connection, insert: Upsert, deployment: str, measured: MeasuredNeed) -> None:
    """Store a measurement if it is the largest of its key; `insert` is an INSERT into `render_needs`."""
    key, kept = measured.key, render_needs.c.bytes
    row = insert.values(
        deployment=deployment,
        speed=key.speed.value,
        pixel_class=key.pixel_class,
        num_frames=key.num_frames,
        bytes=measured.bytes,
    )
    most = case((kept < measured.bytes, measured.bytes), else_=kept)
    keys = ["deployment", "speed", "pixel_class", "num_frames"]
    connection.execute(row.on_conflict_do_update(index_elements=keys, set_={"bytes": most}))
