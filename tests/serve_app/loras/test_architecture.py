import json
from pathlib import Path

import pytest

from serve_app.loras.architecture import WanArchitecture

A14B = {"num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "image_dim": None}


def test_the_full_model_has_ten_linear_layers_in_each_of_its_blocks() -> None:
    shapes = WanArchitecture.from_config(A14B).linear_shapes()
    assert len(shapes) == 400
    assert shapes["blocks.0.self_attn.q"] == (5120, 5120)
    assert shapes["blocks.17.cross_attn.k"] == (5120, 5120)
    assert shapes["blocks.39.ffn.0"] == (13824, 5120)
    assert shapes["blocks.39.ffn.2"] == (5120, 13824)


def test_reads_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(A14B | {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12}))
    assert WanArchitecture.from_config(json.loads(path.read_text())) == WanArchitecture(2, 24, 13824)


def test_an_incomplete_config_names_what_it_lacks() -> None:
    with pytest.raises(KeyError, match="ffn_dim"):
        WanArchitecture.from_config({key: value for key, value in A14B.items() if key != "ffn_dim"})
