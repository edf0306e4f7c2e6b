"""The parameters of Wan's experts equal those of diffusers' own model, by both names."""

import dataclasses
import json
import math
import pickle

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from serve_app.models.architecture import WanArchitecture
from serve_app.models.card import load_card
from tests.loras import model
from tests.serve_app.loras.files import CONFIG, TINY

A14B = load_card("wan22_14b_t2v").architecture


def of_diffusers(architecture: dict[str, object]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        expert = WanTransformer3DModel.from_config(architecture)
    return {name: tuple(parameter.shape) for name, parameter in expert.named_parameters()}


@pytest.mark.parametrize("changed", [{}, {"cross_attn_norm": False}, {"in_channels": 36, "patch_size": [2, 1, 3]}])
def test_every_parameter_of_diffusers_own_model_is_known_with_its_shape(changed: dict[str, object]) -> None:
    assert WanArchitecture.from_config(CONFIG | changed).parameters() == of_diffusers(CONFIG | changed)


def test_the_card_describes_the_full_model() -> None:
    assert A14B.dim == 5120
    assert sum(map(math.prod, A14B.parameters().values())) == 14_288_491_584
    assert A14B.parameters() == of_diffusers(dataclasses.asdict(A14B))


def test_diffusers_own_converter_takes_each_original_name_to_the_same_parameter() -> None:
    leaves = {module.parameter: "" if module.parameter == module.name else ".weight" for module in TINY.modules}
    original = {module.original + leaves[module.parameter]: module.parameter for module in TINY.modules}
    original |= {f"{module.original}.bias": module.bias for module in TINY.modules if module.bias}
    assert convert_wan_transformer_to_diffusers({name: name for name in original}) == {
        parameter: name for name, parameter in original.items()
    }


def test_no_two_modules_share_a_name_in_either_naming_dotted_or_underscored() -> None:
    for spell in (str, lambda name: name.replace(".", "_")):
        owners: dict[str, set[str]] = {}
        for module in A14B.modules:
            for name in (module.name, module.original):
                owners.setdefault(spell(name), set()).add(module.parameter)
        assert all(len(parameters) == 1 for parameters in owners.values())


def test_the_tests_own_list_of_parameters_agrees() -> None:
    assert model.TINY.shapes() == TINY.parameters()


def test_it_travels_between_processes_and_keys_caches() -> None:
    copy = pickle.loads(pickle.dumps(TINY))  # noqa: S301 - our own
    assert copy == TINY
    assert hash(copy) == hash(TINY)
    assert WanArchitecture.from_config(json.loads(json.dumps(CONFIG))) == TINY


@pytest.mark.parametrize("missing", CONFIG)
def test_an_incomplete_config_names_what_it_lacks(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        WanArchitecture.from_config({key: value for key, value in CONFIG.items() if key != missing})
