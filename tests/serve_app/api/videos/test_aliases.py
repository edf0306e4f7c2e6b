"""An alias that could not be rendered stops the start, with the key that is wrong."""

from pathlib import Path
from typing import Any

import pytest

from serve_app.aliases import Alias, AliasLora
from serve_app.api.schemas.bodies import LoraItem
from serve_app.api.schemas.videos import VideoRequest
from serve_app.api.videos.aliases import check_aliases
from serve_app.errors import ConfigurationInvalid
from serve_app.models.card import load_card
from serve_app.settings import Settings
from tests.client import pair
from tests.fixtures.api import save_pair
from tests.fixtures.specs import MODEL


def check(directory: Path, **changes: Any) -> None:
    name = changes.pop("name", "style")
    alias = {"model": MODEL, "loras": pair(), **changes}
    settings = Settings.from_args({"lora_root": directory / "loras", "aliases": {name: alias}})
    check_aliases(settings, [load_card(MODEL)], drafted=())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": MODEL}, f"aliases.{MODEL}: it is the id of a model"),
        ({"model": "wan99"}, "aliases.style.model: 'wan99' is not served"),
        ({"loras": []}, "aliases.style.loras: is empty"),
        ({"loras": [{"path": "gone.safetensors"}]}, r"aliases.style.loras\[0\].path: LoRA file\(s\) not found"),
        ({"loras": [{"path": "../a.safetensors"}]}, r"aliases.style.loras\[0\].path: .*contains '..'"),
        ({"sample_steps": 999}, "aliases.style: sample_steps: "),
        ({"recipe": "draft"}, "aliases.style.recipe: draft needs the arg `draft`"),
        ({"steps": 9}, "aliases.style.steps: Extra inputs"),
        ({"loras": [{"path": "a", "transformer": "left"}]}, r"aliases.style.loras\[0\].transformer"),
    ],
)
def test_a_wrong_alias_is_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    save_pair(tmp_path)
    with pytest.raises(ConfigurationInvalid, match=named):
        check(tmp_path, **changes)


def test_a_right_one_passes_and_a_remote_file_is_left_to_the_request(tmp_path: Path) -> None:
    save_pair(tmp_path)
    check(tmp_path, width=832, fps=24, recipe="preview")
    check(tmp_path, loras=[{"path": "hf://org/repo/file.safetensors", "transformer": "low"}])


def test_an_alias_has_no_field_that_requests_lack() -> None:
    assert Alias.model_fields.keys() <= VideoRequest.model_fields.keys()
    assert AliasLora.model_fields.keys() <= LoraItem.model_fields.keys()
