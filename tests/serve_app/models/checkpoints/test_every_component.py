"""A checkpoint in which one file is wrong is refused by its files alone, and the message names the file."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deployments
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.models.checkpoints.folder import check_base, check_experts, check_text_width

CARD = load_card("wan22_14b_t2v")
WHOLE = Path(deployments.__file__).parent / "wan" / "demo" / "trained" / "checkpoint"
CONFIGS = {
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "transformer": "config.json",
    "transformer_2": "config.json",
    "vae": "config.json",
}
WEIGHTS = {
    "text_encoder": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "transformer_2": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}

Header = dict[str, Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a whole checkpoint of links, of which a test may replace files."""
    return Path(shutil.copytree(WHOLE, tmp_path / "checkpoint", copy_function=os.symlink))


def check(checkpoint: Path) -> None:
    check_base("base_model", checkpoint, CARD)
    check_experts("transformer_model", checkpoint, CARD)
    check_text_width("transformer_model", checkpoint, checkpoint, CARD)


def refusal(checkpoint: Path) -> str:
    with pytest.raises(ConfigurationInvalid) as refused:
        check(checkpoint)
    assert "\n" not in refused.value.message
    return refused.value.message


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def change(config: Path, **entries: Any) -> None:
    replace(config, json.dumps(json.loads(config.read_text()) | entries).encode())


def rewrite(weights: Path, edit: Callable[[Header], None]) -> None:
    """Change the header of a file, and give it data of the length that its header says."""
    with weights.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    header.pop("__metadata__", None)
    edit(header)
    end, sizes = 0, {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}
    for entry in header.values():
        count = sizes[entry["dtype"]]
        for length in entry["shape"]:
            count *= length
        entry["data_offsets"] = [end, end + count]
        end += count
    text = json.dumps(header).encode()
    replace(weights, struct.pack("<Q", len(text)) + text)
    os.truncate(weights, 8 + len(text) + end)


def first(header: Header) -> str:
    return next(name for name in header if name.endswith("weight"))


def lacks_one(header: Header) -> None:
    del header[first(header)]


def has_a_wider_one(header: Header) -> None:
    header[first(header)]["shape"][0] += 1


def holds_whole_numbers(header: Header) -> None:
    header[first(header)]["dtype"] = "I64"


def is_empty(header: Header) -> None:
    header.clear()


def has_one_more(header: Header) -> None:
    header["surplus.weight"] = {"dtype": "F32", "shape": [1]}


def test_a_whole_checkpoint_passes(checkpoint: Path) -> None:
    check(checkpoint)


@pytest.mark.parametrize("part", CONFIGS)
@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"null", b"\xff", b"[" * 100_000], ids=lambda value: str(value)[:9]
)
def test_a_config_that_is_none(checkpoint: Path, part: str, content: bytes | None) -> None:
    config = checkpoint / part / CONFIGS[part]
    config.unlink() if content is None else replace(config, content)
    assert str(config) in refusal(checkpoint)


@pytest.mark.parametrize("part", sorted(CONFIGS.keys() - {"tokenizer"}))
def test_a_config_that_says_nothing(checkpoint: Path, part: str) -> None:
    config = checkpoint / part / CONFIGS[part]
    replace(config, b"{}")
    assert str(config) in refusal(checkpoint)


@pytest.mark.parametrize(
    ("part", "entries"),
    [
        ("scheduler", {"_class_name": "DDIMScheduler"}),
        ("scheduler", {"prediction_type": "epsilon"}),
        ("scheduler", {"use_flow_sigmas": False}),
        ("scheduler", {"flow_shift": 0}),
        ("text_encoder", {"model_type": "clip"}),
        ("text_encoder", {"d_model": 128}),
        ("text_encoder", {"num_layers": 3}),
        ("text_encoder", {"num_layers": 10**9}),
        ("text_encoder", {"vocab_size": "many"}),
        ("text_encoder", {"feed_forward_proj": "relu"}),
        ("transformer", {"_class_name": "UNet2DConditionModel"}),
        ("transformer", {"num_layers": 5}),
        ("transformer", {"num_layers": 7}),
        ("transformer", {"num_layers": "six"}),
        ("transformer", {"num_layers": True}),
        ("transformer_2", {"ffn_dim": 256}),
        ("transformer_2", {"in_channels": 36}),
        ("transformer_2", {"out_channels": 48}),
        ("transformer_2", {"patch_size": [1, 2]}),
        ("transformer_2", {"patch_size": None}),
        ("transformer_2", {"cross_attn_norm": False}),
        ("transformer_2", {"image_dim": 1280}),
        ("vae", {"_class_name": "AutoencoderKL"}),
        ("vae", {"z_dim": 48}),
        ("vae", {"base_dim": 96}),
        ("vae", {"latents_mean": [0.0]}),
        ("vae", {"latents_std": [0.0] * 16}),
        ("vae", {"temperal_downsample": [True, True, True]}),
        ("vae", {"temperal_downsample": []}),
        ("vae", {"num_res_blocks": 2}),
        ("vae", {"is_residual": True}),
        ("vae", {"dim_mult": [1, 2, 4]}),
        ("vae", {"patch_size": 2}),
    ],
    ids=str,
)
def test_a_config_of_another_class_or_size(checkpoint: Path, part: str, entries: dict[str, Any]) -> None:
    change(checkpoint / part / CONFIGS[part], **entries)
    assert str(checkpoint / part) in refusal(checkpoint)


def test_experts_of_two_models(checkpoint: Path) -> None:
    def shorter(header: Header) -> None:
        for name in [name for name in header if name.startswith("blocks.5.")]:
            del header[name]

    change(checkpoint / "transformer_2" / "config.json", num_layers=5)
    rewrite(checkpoint / "transformer_2" / WEIGHTS["transformer_2"], shorter)
    assert "different architectures" in refusal(checkpoint)


def test_a_text_encoder_of_another_model(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    for part in ("transformer", "transformer_2"):
        change(other / part / "config.json", text_dim=32)
    with pytest.raises(ConfigurationInvalid, match=r"width 32.*gives 64"):
        check_text_width("transformer_model", checkpoint, other, CARD)


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("edit", [lacks_one, has_a_wider_one, holds_whole_numbers, is_empty])
def test_weights_that_are_not_the_config_s(checkpoint: Path, part: str, edit: Callable[[Header], None]) -> None:
    rewrite(checkpoint / part / WEIGHTS[part], edit)
    assert str(checkpoint / part) in refusal(checkpoint)


@pytest.mark.parametrize("part", sorted(WEIGHTS.keys() - {"text_encoder"}))
def test_weights_that_the_model_has_no_place_for(checkpoint: Path, part: str) -> None:
    rewrite(checkpoint / part / WEIGHTS[part], has_one_more)
    assert "surplus.weight" in refusal(checkpoint)


@pytest.mark.parametrize("edit", [has_one_more, lambda header: header.update({EMBEDDED: header.pop("shared.weight")})])
def test_a_text_encoder_may_hold_a_decoder_or_name_its_embedding_otherwise(
    checkpoint: Path, edit: Callable[[Header], None]
) -> None:
    rewrite(checkpoint / "text_encoder" / WEIGHTS["text_encoder"], edit)
    check(checkpoint)


EMBEDDED = "encoder.embed_tokens.weight"


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_weights_that_are_cut_off(checkpoint: Path, part: str, kept: int) -> None:
    weights = checkpoint / part / WEIGHTS[part]
    replace(weights, weights.read_bytes()[:kept])
    message = refusal(checkpoint)
    assert str(weights) in message
    assert "cut off" in message


@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.fp16.safetensors", "weights.safetensors"])
def test_weights_under_a_name_that_is_not_loaded(checkpoint: Path, part: str, other: str) -> None:
    weights = checkpoint / part / WEIGHTS[part]
    weights.rename(weights.with_name(other))
    assert f"{checkpoint / part} has no" in refusal(checkpoint)


def an_index(checkpoint: Path, part: str, file: str) -> tuple[Path, dict[str, str]]:
    """Split the weights of a part into one shard, called `file`, and return its index and what it says."""
    weights = checkpoint / part / WEIGHTS[part]
    with weights.open("rb") as stream:
        names = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    weights.rename(weights.with_name(file))
    return weights.with_name(f"{weights.name}.index.json"), {name: file for name in names if name != "__metadata__"}


@pytest.mark.parametrize("part", WEIGHTS)
def test_an_index_is_followed_and_a_wrong_one_named(checkpoint: Path, part: str) -> None:
    index, placed = an_index(checkpoint, part, "part-1.safetensors")
    for content in (
        placed,
        placed | {"more.weight": "part-1.safetensors"},
        placed | {"more.weight": "part-2.safetensors"},
    ):
        replace(index, json.dumps({"weight_map": content}).encode())
        if content == placed:
            check(checkpoint)
        else:
            assert str(checkpoint / part / content["more.weight"]) in refusal(checkpoint)
    wrongs: tuple[object, ...] = ({}, [], {"a": 1}, {"a": "../part-1.safetensors"}, {"a": ""})
    for wrong in wrongs:
        replace(index, json.dumps({"weight_map": wrong}).encode())
        assert f"{index} is no index of weights" in refusal(checkpoint)
    replace(index, b"not JSON")
    assert f"{index} is no index of weights" in refusal(checkpoint)


@pytest.mark.parametrize("part", CONFIGS)
def test_a_part_that_is_missing(checkpoint: Path, part: str) -> None:
    shutil.rmtree(checkpoint / part)
    assert part in refusal(checkpoint)


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "tokenizer", "vae"])
@pytest.mark.parametrize("classes", [None, [None, None]])
def test_a_part_that_the_checkpoint_does_not_name(checkpoint: Path, part: str, classes: object) -> None:
    change(checkpoint / "model_index.json", **{part: classes})
    assert f"names no {part}" in refusal(checkpoint)


@pytest.mark.parametrize("part", ["scheduler", "text_encoder", "vae"])
@pytest.mark.parametrize("classes", [["diffusers", "NoSuchClass"], ["diffusers"], [], [{}, []], ["", ""]], ids=str)
def test_a_part_for_which_the_checkpoint_names_another_class(checkpoint: Path, part: str, classes: object) -> None:
    change(checkpoint / "model_index.json", **{part: classes})
    assert f"names another class for {part}" in refusal(checkpoint)


@pytest.mark.parametrize("model", [None, {}, {"vocab": []}, {"vocab": [["word", 0.0]] * 193}, "a"])
def test_a_tokenizer_without_a_vocabulary_or_with_a_larger_one(checkpoint: Path, model: object) -> None:
    change(checkpoint / "tokenizer" / "tokenizer.json", model=model)
    assert str(checkpoint / "tokenizer" / "tokenizer.json") in refusal(checkpoint)


def test_a_checkpoint_of_another_model(checkpoint: Path) -> None:
    for model in ("wan22_14b_i2v", "wan22_5b"):
        with pytest.raises(ConfigurationInvalid, match="it is of another model"):
            check_experts("transformer_model", checkpoint, load_card(model))
