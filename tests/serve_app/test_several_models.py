"""The arg `models`: one service for several cards, each with settings of its own."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app import application
from serve_app.errors import ConfigurationInvalid
from serve_app.models.served import served_models
from serve_app.plan import ModelPlan, ServicePlan
from serve_app.settings import OffloadMode, Profile, Settings
from tests.fixtures.specs import MODEL
from tests.lantern import CARD

BOTH = [{"model": MODEL}, {"model": str(CARD)}]


def plan_of(settings: Settings, profile: Profile = Profile.GPU) -> ServicePlan:
    """Return a plan whose checkpoints nobody looks at."""
    models = tuple(
        ModelPlan(
            settings=served.settings,
            card=served.card,
            profile=profile,
            base_model="org/base",
            transformer_model="org/experts",
            max_generators=2,
            demo=False,
        )
        for served in served_models(settings)
    )
    return ServicePlan(settings=settings, models=models)


def test_the_args_of_one_model_mean_that_model() -> None:
    settings = Settings.from_args({"model": str(CARD), "max_queued": 7})
    (served,) = served_models(settings)
    assert (served.card.id, served.settings, served.name) == ("lantern_1b", settings, "")


def test_an_entry_has_values_of_its_own_and_for_the_rest_those_of_the_args() -> None:
    entries = [{"model": MODEL, "max_queued": 5, "offload": "model"}, {"model": str(CARD), "min_generators": 2}]
    settings = Settings.from_args({"models": entries, "min_generators": 0, "offload": "none", "lease_s": 30})
    first, second = settings.each_model()
    assert (first.max_queued, first.offload, first.min_generators) == (5, OffloadMode.MODEL, 0)
    assert (second.max_queued, second.offload, second.min_generators) == (100_000, OffloadMode.NONE, 2)
    assert (first.lease_s, second.lease_s) == (30, 30)
    assert [served.card.id for served in served_models(settings)] == [MODEL, "lantern_1b"]


def test_what_changes_in_place_reaches_the_models_that_say_nothing_themselves() -> None:
    settings = Settings.from_args({"models": [BOTH[0], {**BOTH[1], "max_queued": 5}]})
    retuned = plan_of(settings).retuned({"max_queued": 9})
    assert [model.settings.max_queued for model in retuned.models] == [9, 5]
    assert retuned.settings.max_queued == 9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"models": [{}]}, r"models\[0\]\.model: Field required"),
        ({"models": [*BOTH, {"model": "x", "min_generators": -1}]}, r"models\[2\]\.min_generators: "),
        ({"models": [{"model": MODEL, "lora_root": "x"}]}, r"models\[0\]\.lora_root: Extra inputs"),
        ({"models": BOTH, "model": MODEL}, r"models: model cannot stand beside it"),
        (
            {"models": BOTH, "base_model": "a", "transformer_model": "b"},
            r"models: base_model, transformer_model cannot",
        ),
        ({"models": [BOTH[0], {"model": "wan99"}]}, r"^models\[1\]\.model: 'wan99' has no card"),
        ({"models": [BOTH[0], BOTH[0]]}, rf"^models\[1\]\.model: models\[0\]\.model is '{MODEL}', too"),
        ({"models": [{**BOTH[0], "speed": "fast"}], "speeds": ["exact"]}, r"^models\[0\]: args: .*speed: 'fast'"),
    ],
)
def test_what_is_wrong_is_reported_with_its_entry_and_key(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=message):
        served_models(Settings.from_args(args))


def test_a_wrong_checkpoint_is_reported_with_its_entry(tmp_path: Path) -> None:
    entry = {**BOTH[1], "transformer_model": str(tmp_path / "gone")}
    _, served = served_models(Settings.from_args({"models": [BOTH[0], entry]}))
    with (
        pytest.raises(ConfigurationInvalid, match=r"^models\[1\]\.transformer_model: .* does not exist"),
        served.named(),
    ):
        served.card.of_checkpoint(str(served.settings.transformer_model))


def test_models_that_keep_more_gpus_than_there_are_do_not_start() -> None:
    plan = plan_of(Settings.from_args({"models": BOTH}))
    with pytest.raises(ConfigurationInvalid, match="they keep 2 GPUs when idle, and the Ray cluster has 1"):
        application._check_room(plan, gpus=1)
    for args in ({"min_generators": 0}, {"max_generators": 2}):
        application._check_room(plan_of(Settings.from_args({"models": BOTH, **args})), gpus=1)


def test_the_line_that_serve_config_shows_serves_two_models_in_place_of_one() -> None:
    shown = Path("serve_config.yaml").read_text()
    changed = re.sub(r"^( +)#   (models: .*)\n\1model: .*$", r"\1\2", shown, flags=re.MULTILINE)
    assert changed != shown
    settings = Settings.from_args(yaml.safe_load(changed)["applications"][0]["args"])
    assert [served.card.id for served in served_models(settings)] == ["wan22_14b_t2v", "wan22_5b"]
    assert [served.settings.min_generators for served in served_models(settings)] == [1, 0]


def test_the_example_serves_two_models_that_give_each_other_the_gpu() -> None:
    config = yaml.safe_load(Path("configs/serve/two_models.yaml").read_text())
    (app,) = config["applications"]
    models = served_models(Settings.from_args(app["args"]))
    assert len(models) == 2
    assert all(model.settings.min_generators == 0 for model in models)
