"""Control images over HTTP: which codes in which order, what is pinned, what the client is told."""

import io
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from serve_app.spec import Fit
from tests.fixtures.api import Api, Json
from tests.fixtures.images import LORA, PNG, ServeImages, kept, pinned, request, text
from tests.serve_app.images.files import animation, file


@pytest.mark.parametrize("field", ["ctrl_img", "ctrl_img_1", "ctrl_img_2", "ctrl_img_3"])
async def test_an_image_is_pinned_by_its_bytes_and_kept_with_the_request(serve_images: ServeImages, field: str) -> None:
    async with serve_images() as api:
        (spec,) = await api.specs(request({field: text(PNG)}))
        assert spec.image == pinned(PNG)
        assert kept(api) == [f"inputs/{pinned(PNG).sha256}"]


@pytest.mark.parametrize(
    "spelled",
    [
        text(PNG),
        f"data:image/png;base64,{text(PNG)}",
        f"DATA:;base64,{text(PNG)}",
        f"data:image/jpeg;charset=utf-8;base64,{text(PNG)}",
        f" data:image/png;base64, {text(PNG)} ",
        f"data:image/png;base64,{quote(text(PNG), safe='')}",
        "\n".join(text(PNG)[at : at + 76] for at in range(0, len(text(PNG)), 76)),
        "folder/fox.png",
        "./folder//fox.png",
    ],
)
async def test_all_ways_to_send_it_name_one_image(serve_images: ServeImages, image_root: Path, spelled: str) -> None:
    async with serve_images(image_root=image_root) as api:
        (spec,) = await api.specs(request({"ctrl_img": spelled}))
        assert spec.image == pinned(PNG)


@pytest.mark.parametrize("fit", list(Fit))
async def test_fit_is_part_of_the_spec(serve_images: ServeImages, fit: Fit) -> None:
    async with serve_images("required") as api:
        (spec,) = await api.specs(request({"ctrl_img": text(PNG), "fit": fit.value}))
        assert spec.image == pinned(PNG, fit)


async def test_a_model_that_may_do_without_does_without(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        specs = await api.specs(request({}, {"ctrl_img": ""}, {"ctrl_img": None, "ctrl_img_1": ""}))
        assert [spec.image for spec in specs] == [None] * 3
        assert kept(api) == []


@pytest.mark.parametrize("without", [{}, {"ctrl_img": ""}, {"ctrl_img": None, "ctrl_img_2": ""}])
async def test_a_required_image_that_is_missing_is_named_by_its_prompt(
    serve_images: ServeImages, without: Json
) -> None:
    async with serve_images("required") as api:
        error = await api.refused(request({"ctrl_img": "not base64"}, without, {}), "CONTROL_IMAGE_REQUIRED")
        assert error["details"] == {"model": "lantern_1b", "prompt_index": 1}
        assert "prompts[1]" in error["message"]
        assert kept(api) == []


async def test_what_is_wrong_with_the_loras_comes_first(serve_images: ServeImages) -> None:
    async with serve_images("required") as api:
        await api.refused(request({}, model="other"), "MODEL_NOT_FOUND")
        await api.refused(request({}, loras=[]), "LORA_FILE_REQUIRED")
        await api.refused(request({}, loras=[{**LORA, "transformer": "low"}]), "MOE_FORMAT_NOT_SUPPORTED")
        await api.refused(request({}, loras=[{"path": "none.safetensors"}]), "LORA_NOT_FOUND")


async def test_several_images_of_a_prompt_are_refused_by_name(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        several = {"ctrl_img": text(PNG), "ctrl_img_3": text(PNG)}
        error = await api.refused(request({}, several), "SINGLE_CONTROL_IMAGE_ONLY")
        assert error["details"] == {"prompt_index": 1, "fields": ["ctrl_img", "ctrl_img_3"]}


async def test_fit_without_an_image_is_refused(serve_images: ServeImages, api: Api) -> None:
    async with serve_images() as imaged:
        error = await imaged.refused(request({"fit": "crop"}), "CONTROL_IMAGE_NOT_SUPPORTED")
        assert error["details"] == {"prompt_index": 0, "fields": ["fit"]}


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("not base64", "CONTROL_IMAGE_INVALID"),
        (text(b"not an image"), "CONTROL_IMAGE_INVALID"),
        (text(PNG)[:-7], "CONTROL_IMAGE_INVALID"),
        (text(PNG[: len(PNG) // 2]), "CONTROL_IMAGE_INVALID"),
        (f"data:image/png,{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        ("data:image/png;base64,", "CONTROL_IMAGE_INVALID"),
        (f"data:image/png;base64{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        (f"data:image/png;base64;charset=utf-8,{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        (f"data:image/png;base64,data:image/png;base64,{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        (f"data:image/png;base64,%ff{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        (f"data:{'x' * 300};base64,{text(PNG)}", "CONTROL_IMAGE_INVALID"),
        ("   ", "CONTROL_IMAGE_INVALID"),
        (f'"{text(PNG)}"', "CONTROL_IMAGE_INVALID"),
        ("\0", "CONTROL_IMAGE_INVALID"),
        ("javascript:alert(1)", "CONTROL_IMAGE_INVALID"),
        ("folder/fox.png\0.jpg", "CONTROL_IMAGE_REFUSED"),
        ("notes.txt", "CONTROL_IMAGE_INVALID"),
        ("folder/none.png", "CONTROL_IMAGE_NOT_FOUND"),
        ("../secret.png", "CONTROL_IMAGE_REFUSED"),
        ("leaves.png", "CONTROL_IMAGE_REFUSED"),
        ("/etc/fox.png", "CONTROL_IMAGE_REFUSED"),
        ("folder/.", "CONTROL_IMAGE_REFUSED"),
        ("file:///etc/passwd", "CONTROL_IMAGE_REFUSED"),
        ("ftp://example.com/fox.png", "CONTROL_IMAGE_REFUSED"),
        ("http://127.0.0.1:9/fox.png", "CONTROL_IMAGE_REFUSED"),
        ("https://[::1]/fox.png", "CONTROL_IMAGE_REFUSED"),
        ("http://169.254.169.254/latest/meta-data/", "CONTROL_IMAGE_REFUSED"),
        ("https://me:secret@example.com/fox.png", "CONTROL_IMAGE_REFUSED"),
        ("s3://", "CONTROL_IMAGE_REFUSED"),
        ("hf://org/repository", "CONTROL_IMAGE_REFUSED"),
        ("hf://org", "CONTROL_IMAGE_REFUSED"),
    ],
)
async def test_a_bad_image_is_refused_at_once_by_prompt_and_field(
    serve_images: ServeImages, image_root: Path, reference: str, code: str
) -> None:
    async with serve_images(image_root=image_root) as api:
        body = request({"ctrl_img": text(PNG)}, {"ctrl_img_2": reference})
        error = await api.refused(body, code)
        assert error["details"] == {"prompt_index": 1, "field": "ctrl_img_2"}
        assert error["message"].startswith("prompts[1].ctrl_img_2")
        assert "secret" not in error["message"]
        assert str(image_root) not in error["message"]
        assert kept(api) == []


@pytest.mark.parametrize("wrong", [5, True, 1.5, [text(PNG)], {"url": text(PNG)}])
async def test_an_image_that_is_no_text_is_a_422_of_its_field(serve_images: ServeImages, wrong: object) -> None:
    async with serve_images("required") as api:
        answer = await api.post(request({"ctrl_img": wrong}))
        assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
        assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "prompts", 0, "ctrl_img"]]


async def test_paths_are_off_without_an_image_root(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        error = await api.refused(request({"ctrl_img": "folder/fox.png"}), "CONTROL_IMAGE_REFUSED")
        assert "image_root" in error["message"]


async def test_limits_are_args(serve_images: ServeImages) -> None:
    async with serve_images(image_max_megapixels=0.005) as api:
        error = await api.refused(request({"ctrl_img": text(PNG)}), "CONTROL_IMAGE_INVALID")
        assert "90 x 60 pixels" in error["message"]
    async with serve_images(image_max_mib=0.001) as api:
        error = await api.refused(request({"ctrl_img": text(PNG)}), "CONTROL_IMAGE_INVALID")
        assert "1048 bytes" in error["message"]
    async with serve_images(image_max_frames=3) as api:
        error = await api.refused(request({"ctrl_img": text(animation("GIF", 4))}), "CONTROL_IMAGE_INVALID")
        assert "more than 3 frames" in error["message"]


async def test_what_happens_to_an_image_is_said(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        images = [
            PNG,
            file("PNG", "RGBA", 50, 50),
            file("JPEG", width=50, height=50, orientation=6),
            animation("GIF", 3, 40, 40),
            file("PNG", "I;16", 10, 10),
        ]
        specs = await api.specs(request(*({"ctrl_img": text(image)} for image in images)))
        said = ["stretched from 90 x 60 to 96 x 96", "transparent", "EXIF orientation 6", "animation of 3", "8 bits"]
        for spec, words in zip(specs, said, strict=True):
            (warning,) = spec.warnings
            assert words in warning
        (spec,) = await api.specs(request({"ctrl_img": text(PNG), "fit": "pad"}))
        assert spec.warnings == ()


async def test_one_image_of_several_prompts_is_kept_once(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        body = request({"ctrl_img": text(PNG)}, {"ctrl_img": f"data:;base64,{text(PNG)}", "fit": "crop"}, {})
        specs = await api.specs(body)
        assert [spec.image for spec in specs] == [pinned(PNG), pinned(PNG, Fit.CROP), None]
        assert len(kept(api)) == 1


async def test_more_different_images_than_a_request_may_have_are_refused(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        prompts = [{"ctrl_img": text(file("PNG", width=number))} for number in range(1, 34)]
        error = await api.refused(request(*prompts), "CONTROL_IMAGE_REFUSED")
        assert error["details"]["prompt_index"] == 32
        assert kept(api) == []


async def test_the_trainers_flag_for_an_image_is_refused_with_the_field_to_use(serve_images: ServeImages) -> None:
    async with serve_images() as api:
        body = request({"prompt": "a lantern --ctrl_img /data/fox.png"}, recipe="preview")
        error = await api.refused(body, "PROMPT_FLAG_REFUSED")
        assert "send the image in the field ctrl_img" in error["message"]


async def test_bodies_may_be_as_long_as_an_image_needs(serve_images: ServeImages) -> None:
    async with serve_images(max_body_bytes=1024, image_max_mib=0.25) as api:
        large = _photo(170_000)
        (spec,) = await api.specs(request({"ctrl_img": text(large)}))
        assert spec.image == pinned(large)
        answer = await api.post(request({"prompt": "x" * 9000}, {"ctrl_img": "A" * 400_000}))
        assert answer.json()["detail"]["error"]["code"] == "BODY_TOO_LARGE"


def _photo(at_least: int) -> bytes:
    """Return a BMP of that many bytes or a little more."""
    stream = io.BytesIO()
    Image.new("RGB", (at_least // 300 + 1, 100)).save(stream, "BMP")
    return stream.getvalue()
