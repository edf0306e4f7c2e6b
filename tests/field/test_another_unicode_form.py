"""A file name in another Unicode normal form than asked for is found, or, where two look alike, refused by name."""

import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import LoraNotFound, LoraPathRefused
from serve_app.loras import paths
from tests.client import body
from tests.fixtures.api import Api
from tests.serve_app.loras.files import full, save

Form = Literal["NFC", "NFD"]
NAMES = ["café_high.safetensors", "übung/müller_high.safetensors", "각하_high.safetensors", "Ångström/é/ñ.safetensors"]


def in_form(form: Form, name: str) -> str:
    return unicodedata.normalize(form, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("on_disk", "asked"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
async def test_is_found_in_folders_and_names(name: str, on_disk: Form, asked: Form, api: Api) -> None:
    path = api.lora_root / in_form(on_disk, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, full())
    (spec,) = await api.specs(body(loras=[{"path": in_form(asked, name), "transformer": "high"}]))
    assert spec.loras[0].location == str(path)
    assert spec.loras[0].reference == in_form(asked, name)


def test_the_form_that_was_asked_for_goes_first(tmp_path: Path) -> None:
    forms: tuple[Form, ...] = ("NFC", "NFD")
    for form in forms:
        (tmp_path / in_form(form, "é")).touch()
    for form in forms:
        name = in_form(form, "é")
        assert paths.resolve(name, tmp_path).name == name


def test_two_names_that_look_alike_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("\u1eaf", "a\u0306\u0301"):  # a letter with two marks: wholly composed, and not at all
        (tmp_path / name).touch()
    with pytest.raises(LoraPathRefused, match="2 names there look alike"):
        paths.resolve("\u0103\u0301", tmp_path)  # composed by half


@pytest.mark.parametrize("name", ["cafe.safetensors", "cafè.safetensors", "ﬁ.safetensors"])
def test_another_letter_is_not_found(name: str, tmp_path: Path) -> None:
    for other in ("café.safetensors", "fi.safetensors"):
        (tmp_path / other).touch()
    with pytest.raises(LoraNotFound):
        paths.resolve(name, tmp_path)


@pytest.mark.parametrize(
    ("on_disk", "asked"),
    [
        ("ﬁne.safetensors", "fine.safetensors"),
        ("hero_Ｈigh.safetensors", "hero_high.safetensors"),
        ("Hero/High.safetensors", "hero/high.safetensors"),
        ("a b.safetensors", "a\u00a0b.safetensors"),
        ("a-b.safetensors", "a\u2013b.safetensors"),
        ("a\u200bb.safetensors", "ab.safetensors"),
        ("a .safetensors", "a.safetensors"),
    ],
)
async def test_a_name_that_looks_the_same_is_hinted_at(on_disk: str, asked: str, api: Api) -> None:
    path = api.lora_root / on_disk
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, full())
    error = await api.refused(body(loras=[{"path": asked, "transformer": "high"}]), "LORA_NOT_FOUND")
    assert error["details"] == {"missing_files": [asked], "did_you_mean": {asked: on_disk}}
    assert f"did you mean {on_disk!r}?" in error["message"]


def test_of_several_names_that_look_the_same_none_is_hinted_at(tmp_path: Path) -> None:
    for name in ("HERO", "Hero"):
        (tmp_path / name).touch()
    with pytest.raises(LoraNotFound) as caught:
        paths.resolve("hero", tmp_path)
    assert "did you mean" not in caught.value.message


def test_nothing_of_another_tenant_is_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "tenants" / "other").mkdir(parents=True)
    (tmp_path / "tenants" / "other" / "hero").touch()
    for asked in ("ｔenants/other/hero", "tenants\u200b/other/hero", "Tenants/other/hero", "tenants/other/Hero"):
        with pytest.raises(LoraNotFound) as caught:
            paths.Folders(tmp_path, "me").find(asked)
        assert caught.value.details == {"missing_files": [asked]}


def test_it_is_no_way_out_of_lora_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").touch()
    (root / in_form("NFD", "é")).symlink_to(tmp_path / "secret")
    with pytest.raises(LoraPathRefused, match="symlink"):
        paths.resolve(in_form("NFC", "é"), root)


@given(st.text(max_size=50))
def test_any_text_is_found_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp()
    with suppress(LoraNotFound, LoraPathRefused):
        assert paths.resolve(text, root).is_relative_to(root.resolve())
