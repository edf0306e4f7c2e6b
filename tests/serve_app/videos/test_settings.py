"""Settings that the service embeds in its files, read back by the command line."""

from pathlib import Path

import pytest

from deployments.media.encoding import encode
from serve_app.embedded import settings_text
from serve_app.spec import OutputFormat
from serve_app.videos.settings import differing, read_settings
from tests.fixtures.renderer import frames_of
from tests.fixtures.specs import make_spec

PROMPT = 'a "fox"; 50 % = half # \\ <b>&amp;</b> 日本'


@pytest.mark.parametrize("output_format", OutputFormat)
def test_the_settings_of_a_file_are_the_requests(tmp_path: Path, output_format: OutputFormat) -> None:
    spec = make_spec(prompt=PROMPT, seed=7, output_format=output_format)
    path = tmp_path / "video"
    encode(frames_of(spec), spec.fps, output_format, path, settings_text(spec))
    request = read_settings(path)
    assert request is not None
    assert (request.prompts[0].prompt, request.prompts[0].seed) == (PROMPT, 7)
    assert [lora.path for lora in request.loras] == [lora.reference for lora in spec.loras]


@pytest.mark.parametrize("output_format", OutputFormat)
def test_a_file_without_settings_has_none(tmp_path: Path, output_format: OutputFormat) -> None:
    spec = make_spec(output_format=output_format)
    encode(frames_of(spec), spec.fps, output_format, tmp_path / "video")
    assert read_settings(tmp_path / "video") is None


@pytest.mark.parametrize("text", ["", "{}", "no JSON", '{"wan_lora_serve": 1, "request": {"model": 3}}'])
def test_another_programs_comment_is_no_settings(tmp_path: Path, text: str) -> None:
    spec = make_spec()
    encode(frames_of(spec), spec.fps, OutputFormat.MP4, tmp_path / "video", text)
    assert read_settings(tmp_path / "video") is None


def test_differing_settings_are_named_with_both_values(tmp_path: Path) -> None:
    requests = []
    for seed in (1, 2):
        spec = make_spec(seed=seed)
        encode(frames_of(spec), spec.fps, OutputFormat.MP4, tmp_path / "video", settings_text(spec))
        requests.append(read_settings(tmp_path / "video"))
    one, other = requests
    assert one is not None
    assert other is not None
    assert differing(one, other) == {"seed": (1, 2)}
