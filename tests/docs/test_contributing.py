"""CONTRIBUTING.md: its map names folders and files that exist, and its words are those of the code."""

import re
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("serve_app", "deployments")
_LEFT_OUT = {"migrations", "sources", "schemas", "sheet", "training", "untrained", "trained", "versions", "__pycache__"}


@cache
def _rows(heading: str) -> tuple[tuple[str, str], ...]:
    text = (_ROOT / "CONTRIBUTING.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return tuple((first.strip(), rest.strip()) for first, rest in rows[2:])


def _folders() -> dict[str, str]:
    return {folder.strip("`"): text for folder, text in _rows("Where things are")}


@pytest.mark.parametrize("folder", _folders())
def test_every_file_of_the_map_exists(folder: str) -> None:
    assert (_ROOT / folder).is_dir()
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", _folders()[folder]):
        assert (_ROOT / folder / name).exists() or (_ROOT / name).exists(), name


def test_every_package_is_on_the_map() -> None:
    packages = {
        f"{path.parent.relative_to(_ROOT)}/"
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*.py")
        if not _LEFT_OUT.intersection(path.relative_to(_ROOT).parts)
    }
    assert packages <= _folders().keys()


def test_every_word_of_the_glossary_is_a_word_of_the_code() -> None:
    files = [path for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")]
    code = " ".join(path.read_text().lower().replace("\n", " ").replace("_", " ") for path in files)
    words = [word.strip().lower() for terms, _ in _rows("Words") for word in terms.split(",")]
    assert [word for word in words if word not in code] == []
