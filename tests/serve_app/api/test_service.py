"""What the service tells about itself."""

from serve_app.results import Attention, GeneratorRuntime, Kernels
from tests.fixtures.api import Api, ServeApi, on_both_databases
from tests.fixtures.specs import MODEL

pytestmark = on_both_databases


async def test_models_lists_the_card_in_the_references_fields(api: Api) -> None:
    (model,) = (await api.get("/v1/models"))["models"]
    beyond_the_reference = {"demo", "notice", "title", "experts", "control_image", "speeds", "default_speed", "draft"}
    assert {field: value for field, value in model.items() if field not in beyond_the_reference} == {
        "id": MODEL,
        "base_model": "org/base",
        "transformer_model": "org/experts",
        "resolution_divisor": 32,
        "default_steps": 25,
        "default_guidance_scale": 4.0,
        "default_seed": 42,
        "default_width": 1024,
        "default_height": 1024,
        "requires_control_image": False,
        "is_video_model": True,
        "default_num_frames": 41,
        "default_fps": 16,
    }


async def test_models_say_what_requests_may_name(api: Api) -> None:
    (model,) = (await api.get("/v1/models"))["models"]
    assert (model["title"], model["experts"]) == ("Wan 2.2 T2V A14B", ["high", "low"])
    assert (model["control_image"], model["speeds"], model["default_speed"]) == ("none", ["exact", "fast"], "exact")


async def test_health_says_what_is_served(api: Api) -> None:
    health = await api.get("/health")
    assert (health["status"], health["model"], health["profile"]) == ("healthy", MODEL, "cpu")


async def test_a_demo_says_so_wherever_a_client_asks(serve_api: ServeApi) -> None:
    async with serve_api(demo=True) as api:
        (model,) = (await api.get("/v1/models"))["models"]
        for answer in (model, await api.get("/health")):
            assert answer["demo"] is True
            assert "DEMO" in answer["notice"]
            assert "tiny checkpoint" in answer["notice"]


async def test_the_real_model_comes_without_a_notice(serve_api: ServeApi) -> None:
    async with serve_api(demo=False) as api:
        (model,) = (await api.get("/v1/models"))["models"]
        for answer in (model, await api.get("/health")):
            assert (answer["demo"], answer["notice"]) == (False, None)


async def test_an_unknown_path_is_not_found_and_an_unknown_method_not_allowed(api: Api) -> None:
    assert (await api.http.get("/v1/images")).status_code == 404
    assert (await api.http.get("/v1/inference")).status_code == 405


async def test_health_names_the_kernels_that_the_generators_found(serve_api: ServeApi) -> None:
    hopper = Kernels(attention=Attention.FLASH_3, compiled=True, float8=True)
    runtime = GeneratorRuntime(device="H200", dtype="bfloat16", offload="none", pristine="gpu", kernels=hopper)
    async with serve_api() as api:
        api.announced.generators = {"one": runtime, "two": runtime}
        (model,) = (await api.get("/health"))["models"]
        assert model["kernels"] == [{"attention": "flash_attention_3", "compiled": True, "float8": True}]
        generators = (await api.get("/v1/cluster"))["models"][0]["generators"]
        assert [generator["kernels"]["float8"] for generator in generators] == [True, True]
