import json

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from serve_app.jobs.database import migrate
from serve_app.jobs.tables import metadata
from serve_app.spec import RenderSpec, Sampler
from tests.fixtures.store import connect

OLD_SPEC = {
    "recipe": "reference",
    "loras": [
        {
            "expert": "high",
            "reference": "a.safetensors",
            "file": "/loras/a.safetensors",
            "sha256": "abc",
            "multiplier": 1.0,
        }
    ],
    "prompt": "a fox",
    "negative_prompt": "",
    "width": 64,
    "height": 64,
    "num_frames": 5,
    "fps": 16,
    "sample_steps": 4,
    "guidance_scale": 4.0,
    "seed": 42,
    "output_format": "mp4",
}


def test_the_migrations_build_the_tables_that_the_store_uses(database_url: str) -> None:
    with connect(database_url) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_migrating_twice_changes_nothing(database_url: str) -> None:
    migrate(database_url)


@pytest.mark.parametrize("database_url", ["sqlite-empty", "postgresql-empty"], indirect=True)
def test_a_spec_from_before_lora_sources_becomes_one_of_today(database_url: str) -> None:
    migrate(database_url, "0001")
    with connect(database_url) as connection:
        connection.execute(text("INSERT INTO requests VALUES ('r', 'wan22_14b_t2v', 1.0)"))
        connection.execute(
            text(
                'INSERT INTO renders (request_id, "index", state, pair_key, spec, created_at)'
                " VALUES ('r', 0, 'queued', 'key', :spec, 1.0)"
            ),
            {"spec": json.dumps(OLD_SPEC)},
        )
    migrate(database_url)
    with connect(database_url) as connection:
        spec = RenderSpec.model_validate_json(connection.execute(text("SELECT spec FROM renders")).scalar_one())
    (lora,) = spec.loras
    assert (lora.location, lora.content, lora.sha256) == ("/loras/a.safetensors", "abc", "abc")
    assert (spec.sampler, spec.shift, spec.strict) == (Sampler.UNIPC, None, True)
