"""Which LoRA files a client can reach: those under `lora_root`, and no others."""

from pathlib import Path

import pytest

from tests.client import body, pair
from tests.fixtures.api import Api
from tests.serve_app.loras.files import full, save

HIGH, LOW = pair()


async def test_a_missing_file_is_named(api: Api) -> None:
    error = await api.refused(body(loras=[HIGH, {**LOW, "path": "no/such.safetensors"}]), "LORA_NOT_FOUND")
    assert "no/such.safetensors" in error["message"]
    assert error["details"] == {"missing_files": ["no/such.safetensors"]}


async def test_two_missing_files_are_named_together(api: Api) -> None:
    loras = [{**HIGH, "path": "a.safetensors"}, {**LOW, "path": "b.safetensors"}]
    error = await api.refused(body(loras=loras), "LORA_NOT_FOUND")
    assert error["details"] == {"missing_files": ["a.safetensors", "b.safetensors"]}
    assert "a.safetensors" in error["message"]
    assert "b.safetensors" in error["message"]


@pytest.fixture
def outside(api: Api) -> Path:
    """Return a good LoRA beside `lora_root`, and links to it inside."""
    outside = save(api.directory / "outside.safetensors", full())
    (api.lora_root / "link.safetensors").symlink_to(outside)
    (api.lora_root / "folder").symlink_to(api.directory)
    return outside


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside.safetensors", "contains '..'"),
        ("demo/../../outside.safetensors", "contains '..'"),
        ("demo/../" + HIGH["path"], "contains '..'"),
        ("link.safetensors", "symlink"),
        ("folder/outside.safetensors", "symlink"),
        ("/etc/passwd", "absolute"),
        ("ftp://example.com/a.safetensors", "sources"),
        ("file:///etc/passwd", "sources"),
        ("http://example.com/a.safetensors", "https"),
        ("https://127.0.0.1/a.safetensors", "private"),
        ("demo\\a.safetensors", "backslash"),
        ("demo", "directory"),
        ("", "empty"),
        ("a\0.safetensors", "NUL"),
    ],
)
@pytest.mark.usefixtures("outside")
async def test_a_path_that_leaves_lora_root_or_is_none_is_refused_with_the_reason(
    api: Api, path: str, why: str
) -> None:
    error = await api.refused(body(loras=[{**HIGH, "path": path}]), "LORA_PATH_REFUSED")
    assert why in error["message"]
    assert error["details"] == {"path": path}
    assert str(api.directory) not in str(error)


async def test_an_absolute_path_is_refused_even_where_it_leads_into_lora_root(api: Api) -> None:
    path = str(api.lora_root / HIGH["path"])
    error = await api.refused(body(loras=[{**HIGH, "path": path}]), "LORA_PATH_REFUSED")
    assert "absolute" in error["message"]


async def test_a_symlink_that_stays_inside_is_followed(api: Api) -> None:
    (api.lora_root / "latest.safetensors").symlink_to(HIGH["path"])
    (spec,) = await api.specs(body(loras=[{**HIGH, "path": "latest.safetensors"}]))
    (lora,) = spec.loras
    assert (lora.reference, Path(lora.location)) == ("latest.safetensors", (api.lora_root / HIGH["path"]).resolve())
