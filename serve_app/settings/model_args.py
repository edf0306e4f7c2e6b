"""Args that each model of a service has for itself: weights, memory, speed, queue limits, autoscaling."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from serve_app.drafts import Draft
from serve_app.settings.modes import OffloadMode, PristineMode
from serve_app.spec import Speed

_LARGEST = 2**53  # every integer up to it is a float, too


class TurboArgs(BaseModel):
    """What the speed profile `turbo` does beside FP8."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    step_cache: float | None = Field(None, gt=0, lt=1)  # relative change below which a pass is skipped; silent: never


class ModelArgs(BaseModel):
    """What may differ between the models of one service."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    model: str  # an id under configs/models, or the path of a card file
    base_model: str | None = None  # from the card
    transformer_model: str | None = None  # from the card
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 on GPU, float32 on CPU
    offload: OffloadMode = OffloadMode.AUTO
    # Speed profiles: what a request gets that names none, and which a request may name.
    speed: Speed = Speed.EXACT
    speeds: tuple[Speed, ...] = (Speed.EXACT, Speed.FAST)
    turbo: TurboArgs = TurboArgs()
    draft: Draft | None = None  # the few-step LoRAs of the recipe `draft`
    # Of each Generator: LoRAs kept ready, and where the untouched weights that merging starts from are kept.
    lora_memory_gib: float = Field(8, ge=0)
    pristine: PristineMode = PristineMode.AUTO
    render_timeout_s: float = Field(3600, gt=0)
    # Who may still join the model's queue. A silent limit is none.
    max_queued: int | None = Field(100_000, ge=1)
    max_queued_per_tenant: int | None = Field(None, ge=1)
    max_wait_s: float | None = Field(None, gt=0)  # predicted
    gpus_per_generator: Literal[1, 2, 4, 8] = 1  # that share each render; all of one node
    # Custom Ray resources that each Generator takes beside its GPU, so that it goes to the nodes that have them.
    generator_resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    min_generators: int = Field(1, ge=0)
    max_generators: int | None = Field(None, ge=1)  # silent: one per GPU of the cluster now, one on the CPU
    # Generators are added until everything accepted would be done in this time; idle ones go after the delay. Shorter
    # delays than these would act on counts of Serve's that are seconds old, for which a Generator too many comes.
    target_wait_s: float = Field(60, gt=0)
    upscale_delay_s: float = Field(2, ge=2)
    downscale_delay_s: float = Field(600, ge=5)

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_plain_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what YAML makes of `max_queued: yes`, and numbers that no database and no clock has room for."""
        kinds = (int, float, int | None, float | None)
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in kinds:
            raise ValueError("must be a number")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError("is too large a number")
        return value

    @model_validator(mode="after")
    def _keeps_no_more_generators_than_it_may_have(self) -> Self:
        if self.max_generators is not None and self.min_generators > self.max_generators:
            raise ValueError(f"min_generators: {self.min_generators} is more than max_generators")
        return self

    @model_validator(mode="after")
    def _allows_its_own_speed(self) -> Self:
        if self.speed not in self.speeds:
            raise ValueError(f"speed: '{self.speed.value}' is not among speeds, which requests may name; add it there")
        return self

    @model_validator(mode="after")
    def _uses_its_step_cache(self) -> Self:
        if self.turbo.step_cache is None:
            return self
        if Speed.TURBO not in self.speeds:
            raise ValueError("turbo.step_cache: nothing uses it, as speeds does not name turbo; add it there")
        if self.gpus_per_generator > 1:
            raise ValueError(
                "turbo.step_cache: GPUs that share a render would each decide for their part of it; leave it out, or "
                "use gpus_per_generator: 1"
            )
        return self


class ModelEntry(ModelArgs):
    """One entry of the arg `models`."""
