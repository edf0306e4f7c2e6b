"""An alpha that is not a tensor of the file: in its metadata, or in PEFT's adapter_config.json beside it.

Applied exactly where its meaning is certain; else refused, or warned of in inspection and result alike.
"""

import json
from collections.abc import Mapping
from math import sqrt
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.loras.formats import LoraContents, LowRank, SafetensorsHeader, parse
from serve_app.loras.formats.adapter_config import AdapterFile, shortened
from tests.client import body
from tests.fixtures.api import Api, Json
from tests.serve_app.loras.files import TINY, Tensors, full, save
from tests.serve_app.loras.headers import PAIR, STEM, accept, header, refusal

PEFT = {key.replace("diffusion_model.", "base_model.model."): shape for key, shape in PAIR.items()}
RANK = 4


def scales(contents: LoraContents) -> list[float | None]:
    return [change.scale for change in contents.changes() if isinstance(change, LowRank)]


def peft(tensors: Tensors | None = None) -> Tensors:
    return {key.replace("diffusion_model.", "base_model.model."): value for key, value in (tensors or full()).items()}


def config(**changes: Any) -> Json:
    return {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": ["q", "k"], **changes}


def save_folder(
    api: Api, name: str, tensors: Tensors, settings: object, metadata: Mapping[str, str] | None = None
) -> str:
    path = api.lora_root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, tensors, dict(metadata or {"format": "pt"}))
    (path.parent / "adapter_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return name


async def report(api: Api, name: str) -> Json:
    answer = await api.http.post("/v1/loras/inspect", json={"loras": [{"path": name, "transformer": "high"}]})
    assert answer.status_code == httpx.codes.OK
    found: Json = answer.json()["files"][0]
    return found


# In the metadata of the header


@pytest.mark.parametrize(
    "name", ["lora_alpha", "network_alpha", "alpha", "LORA_ALPHA", "lora-alpha", "networkAlpha", "Alpha", "lora.alpha"]
)
@given(alpha=st.floats(1e-3, 1e3))
def test_a_flat_alpha_in_the_metadata_scales_by_alpha_over_rank(name: str, alpha: float) -> None:
    contents = accept(PAIR, {name: repr(alpha)})
    assert scales(contents) == [alpha / RANK]
    assert contents.remarks == ()


def test_a_flat_alpha_is_stabilised_where_the_metadata_says_so() -> None:
    assert scales(accept(PAIR, {"lora_alpha": "8", "use_rslora": "true"})) == [8 / sqrt(RANK)]


@pytest.mark.parametrize("entry", ["adapter_config", "peft_config", "lora_config", "lora_adapter_metadata"])
def test_a_peft_config_in_the_metadata(entry: str) -> None:
    assert scales(accept(PAIR, {entry: json.dumps(config())})) == [8.0]


@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf", "1e999"])
def test_a_flat_alpha_that_is_no_alpha_is_refused(alpha: str) -> None:
    assert "no number above 0" in refusal(PAIR, {"lora_alpha": alpha})["reason"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_alpha": "1", "alpha": "2"},
        {"lora_alpha": "1", "lora_adapter_metadata": json.dumps(config())},
        {"adapter_config": json.dumps(config()), "peft_config": json.dumps(config(lora_alpha=4))},
    ],
)
def test_metadata_that_contradicts_itself_is_refused(metadata: dict[str, str]) -> None:
    reason = refusal(PAIR, metadata)["reason"]
    assert "several alphas" in reason or "differs" in reason


@pytest.mark.parametrize("text", ["rank", "None", "{}", "1/2", "1_0", "٤", "0x4", "1,5"])
def test_a_flat_alpha_that_is_no_number_is_warned_of(text: str) -> None:
    contents = accept(PAIR, {"lora_alpha": text})
    assert scales(contents) == [None]
    assert [repr(text) in remark for remark in contents.remarks] == [True]


def test_alpha_tensors_go_before_a_flat_alpha() -> None:
    contents = accept(PAIR | {f"{STEM}.alpha": ()}, {"alpha": "2"})
    assert scales(contents) == [None]
    assert "is not applied, as it has alpha tensors" in contents.remarks[0]


@pytest.mark.parametrize(("alpha", "said"), [("16", True), ("1.0", True), ("odd", True), ("4", False), ("4.0", False)])
def test_the_alpha_of_kohya_alone_is_not_applied_but_said(alpha: str, said: bool) -> None:
    contents = accept(PAIR, {"ss_network_alpha": alpha})
    assert scales(contents) == [None]
    assert ["ss_network_alpha" in remark for remark in contents.remarks] == [True] * said
    assert accept(PAIR | {f"{STEM}.alpha": ()}, {"ss_network_alpha": alpha}).remarks == ()


@pytest.mark.parametrize("name", ["linear_alpha", "network_linear_alpha", "train_alpha", "alpha_value"])
@pytest.mark.parametrize(("alpha", "said"), [("16", True), ("4", False), ("4.0", False), ("", False), ("sure", False)])
def test_an_alpha_of_a_name_that_nobody_knows_is_not_applied_but_said(name: str, alpha: str, said: bool) -> None:
    contents = accept(PAIR, {name: alpha})
    assert scales(contents) == [None]
    assert [f"{name!r} (16) is not applied" in remark for remark in contents.remarks] == [True] * said


@pytest.mark.parametrize("name", ["lora_rank", "network_dim", "rank", "r"])
@pytest.mark.parametrize(("rank", "said"), [("8", True), ("4", False), ("4.0", False), ("many", False)])
def test_a_flat_alpha_beside_a_rank_that_the_tensors_do_not_have_is_said(name: str, rank: str, said: bool) -> None:
    contents = accept(PAIR, {"lora_alpha": "8", name: rank})
    assert scales(contents) == [8 / RANK]
    assert [f"{name!r} says 8" in remark for remark in contents.remarks] == [True] * said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"r": RANK, "lora_alpha": 1}, True),
        ({"network": {"type": "lora", "linear": RANK, "linear_alpha": 1}}, True),
        ([{"alpha": 1}], False),  # no object
        ({"steps": [{"alpha": "1"}]}, True),
        ({"lora_alpha": RANK}, False),
        ({"alpha": None, "alphabet": 1}, False),
    ],
)
def test_an_alpha_within_an_entry_of_json_that_nobody_knows_is_not_applied_but_said(entry: object, said: bool) -> None:
    contents = accept(PAIR, {"config": json.dumps(entry)})
    assert scales(contents) == [None]
    assert ["'config' has an alpha (1)" in remark for remark in contents.remarks] == [True] * said


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "PiSSA"])
def test_a_lora_whose_training_changed_the_base_first_is_refused(begun: str) -> None:
    settings = json.dumps(config(init_lora_weights=begun))
    assert "init_lora_weights" in refusal(PAIR, {"lora_adapter_metadata": settings})["reason"]


@pytest.mark.parametrize("begun", [True, False, "gaussian", "eva", "orthogonal", None])
def test_a_lora_whose_training_began_from_the_model_s_own_weights_is_applied(begun: object) -> None:
    settings = json.dumps(config(init_lora_weights=begun))
    assert scales(accept(PAIR, {"lora_adapter_metadata": settings})) == [8.0]


@pytest.mark.parametrize("suffix", ["lora_alpha", "lora.alpha", "network_alpha"])
def test_alpha_tensors_under_other_names(suffix: str) -> None:
    key = f"{STEM}.{suffix}"
    (change,) = accept(PAIR | {key: ()}).changes()
    assert isinstance(change, LowRank)
    assert change.alpha == key


# Beside the file


def beside(settings: Json, *, certain: bool = False) -> AdapterFile:
    return AdapterFile(shortened(json.dumps(settings)), certain)


def parse_beside(shapes: dict[str, tuple[int, ...]], settings: Json, *, certain: bool = False) -> LoraContents:
    found: SafetensorsHeader = header(shapes)
    return parse(found, TINY, "mine", beside=beside(settings, certain=certain))


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        (config(), 8.0),
        (config(use_rslora=True), 32 / sqrt(RANK)),
        (config(alpha_pattern={"self_attn.q": 2}), 0.5),
        (config(alpha_pattern={"attn1.to_q": 2}), 0.5),
        (config(alpha_pattern={"^blocks.0.self_attn.q": 2}), 0.5),
        (config(alpha_pattern={"self_attn.k": 2}), 8.0),
        (config(r=16, rank_pattern={"q": RANK}), 8.0),
    ],
)
def test_the_file_of_peft_is_applied_as_peft_computes_it(settings: Json, scale: float) -> None:
    assert scales(parse_beside(PEFT, settings)) == [scale]
    assert scales(parse_beside(PAIR, settings, certain=True)) == [scale]


def test_the_file_of_peft_beside_a_file_that_may_be_another_s_is_warned_of() -> None:
    contents = parse_beside(PAIR, config())
    assert scales(contents) == [None]
    assert "may be another file's" in contents.remarks[0]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (config(r=8), "rank 8, and its tensors have rank 4"),
        (config(lora_alpha=None), "no usable lora_alpha"),
        (config(use_dora=True), "use_dora"),
        (config(bias="all"), "biases"),
        (config(peft_type="LOHA"), "another kind of adapter"),
        (config(rank_pattern={"q": 2}), "rank 2"),
        (config(init_lora_weights="pissa"), "init_lora_weights"),
    ],
)
async def test_a_folder_that_contradicts_itself_is_refused(settings: Json, why: str, api: Api) -> None:
    name = save_folder(api, "mine/adapter_model.safetensors", peft(), settings)
    error = await api.refused(body(loras=[{"path": name, "transformer": "high"}]), "LORA_INVALID")
    assert why in error["message"]
    assert why in (await report(api, name))["error"]["message"]


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"x"', "\ufeff{}"])
async def test_a_file_of_peft_that_is_no_json_object_is_refused(text: str, api: Api) -> None:
    name = save_folder(api, "mine/adapter_model.safetensors", peft(), text)
    error = await api.refused(body(loras=[{"path": name, "transformer": "high"}]), "LORA_INVALID")
    assert "adapter_config.json" in error["message"]


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("mine/adapter_model.safetensors", peft()),
        ("mine/other_name.safetensors", peft()),
        ("mine/adapter_model.safetensors", full()),
        ("mine/alone.safetensors", full()),
    ],
)
async def test_a_folder_of_peft_through_the_api(name: str, tensors: Tensors, api: Api) -> None:
    save_folder(api, name, tensors, config())
    (spec,) = await api.specs(body(loras=[{"path": name, "transformer": "high"}]))
    assert spec.warnings == ()
    assert json.loads(spec.loras[0].adapter_config or "")["lora_alpha"] == 32
    found = (await report(api, name))["report"]
    assert (found["scales"]["min"], found["scales"]["max"]) == (8.0, 8.0)
    assert found["warnings"] == []


async def test_without_the_file_of_peft_inspection_and_result_say_so_alike(api: Api) -> None:
    save(api.lora_root / "adapter_model.safetensors", peft(), {"format": "pt"})
    (spec,) = await api.specs(body(loras=[{"path": "adapter_model.safetensors", "transformer": "high"}]))
    assert ["adapter_config.json" in warning for warning in spec.warnings] == [True]
    assert list(spec.warnings) == (await report(api, "adapter_model.safetensors"))["report"]["warnings"]


async def test_another_alpha_beside_the_same_bytes_is_another_lora(api: Api) -> None:
    loras = []
    for alpha in (32, 4):
        save_folder(api, "mine/adapter_model.safetensors", peft(), config(lora_alpha=alpha))
        (spec,) = await api.specs(body(loras=[{"path": "mine/adapter_model.safetensors", "transformer": "high"}]))
        loras.append((spec.pair_key, spec.loras[0]))
    (first_key, first), (second_key, second) = loras
    assert first_key != second_key
    assert first.content != second.content
    assert (first.blob, first.sha256) == (second.blob, second.sha256)


async def test_a_flat_alpha_through_the_api(api: Api) -> None:
    save(api.lora_root / "mine.safetensors", full(), {"lora_alpha": "1"})
    found = (await report(api, "mine.safetensors"))["report"]
    assert found["scales"] == {"min": 0.25, "max": 0.25, "with_alpha": 0, "from_metadata": 20, "implied": 0}


async def test_a_symlink_out_of_lora_root_is_not_read_as_the_file_of_peft(api: Api) -> None:
    secret = api.directory / "secret.json"
    secret.write_text(json.dumps(config()))
    path = api.lora_root / "mine" / "adapter_model.safetensors"
    path.parent.mkdir()
    save(path, peft(), {"format": "pt"})
    (path.parent / "adapter_config.json").symlink_to(secret)
    (spec,) = await api.specs(body(loras=[{"path": "mine/adapter_model.safetensors", "transformer": "high"}]))
    assert spec.loras[0].adapter_config is None
    assert np.all(["adapter_config.json" in warning for warning in spec.warnings])


# What else may say how strongly a file acts


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"lora_scale": "0.5"}, "'lora_scale' (0.5) is not applied: it may be a scale"),
        ({"Scaling": " 2 "}, "'Scaling' (2) is not applied: it may be a scale"),
        ({"lora_config": "{"}, "'lora_config' is not applied: it holds no lora_alpha"),
        ({"adapter_config": '{"peft_type": "LOHA"}'}, "'adapter_config' is not applied: it holds no lora_alpha"),
        ({"use_dora": "True"}, "it has no magnitudes: it is applied as a LoRA"),
    ],
)
def test_metadata_that_is_not_followed_is_said(metadata: dict[str, str], said: str) -> None:
    contents = accept(PAIR, metadata)
    assert scales(contents) == [None]
    assert [remark for remark in contents.remarks if said in remark]


@pytest.mark.parametrize(
    "metadata", [{"scale": "1.0"}, {"strength": "strong"}, {"use_dora": "false"}, {"lora_config": ""}]
)
def test_metadata_that_changes_nothing_is_not_mentioned(metadata: dict[str, str]) -> None:
    assert accept(PAIR, metadata).remarks == ()


@pytest.mark.parametrize("name", ["alpha.weight", "lora_alpha.default", "Alpha", "lora.alpha", "network_alpha.weight"])
def test_an_alpha_tensor_under_another_spelling_counts(name: str) -> None:
    (change,) = accept({**PAIR, f"{STEM}.{name}": ()}).changes()
    assert isinstance(change, LowRank)
    assert change.alpha == f"{STEM}.{name}"


@pytest.mark.parametrize("name", ["scale", "scaling.default", "lora_scale", "lora_scaling.weight"])
@pytest.mark.parametrize("strict", [True, False])
def test_scales_of_layers_are_never_left_out(name: str, *, strict: bool) -> None:
    assert "scale for each layer" in refusal({**PAIR, f"{STEM}.{name}": ()}, strict=strict)["reason"]
