"""Which class a model card's `pipeline` names."""

import pytest

from deployments.pipeline import pipeline_class
from deployments.wan.runtime import WanRuntime
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card


def test_the_card_names_the_class() -> None:
    assert pipeline_class(load_card("wan22_14b_t2v").pipeline) is WanRuntime


@pytest.mark.parametrize(
    "name",
    ["", "wan22_t2v", "deployments.nowhere:Runtime", "deployments.pipeline:Nothing", "deployments.pipeline", "os:sep"],
)
def test_a_name_that_is_no_class_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"pipeline: .*a model card names a module:Class"):
        pipeline_class(name)
