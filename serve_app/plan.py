"""Plans: the decisions of `build` (profile, card, checkpoints, settings), for the service and for each model."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from serve_app.drafts import Draft
from serve_app.models.card import ModelCard
from serve_app.settings import Profile, Settings


class ModelPlan(BaseModel):
    """One model of the service with nothing left open: the profile is resolved, the card is found."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    settings: Settings  # the model's own
    card: ModelCard  # with the architecture of the experts in `transformer_model`
    profile: Profile  # cpu or gpu
    base_model: str  # hub id or directory
    transformer_model: str
    max_generators: int
    demo: bool
    draft: Draft | None = None  # what the recipe `draft` is made with; None: it is not served

    @property
    def least_generators(self) -> int:
        """Return how many Generators there are when the model is idle."""
        return min(self.settings.min_generators, self.max_generators)

    @property
    def gpus_kept(self) -> int:
        """Return the number of GPUs that the model occupies when it is idle."""
        return self.least_generators * self.settings.gpus_per_generator

    @property
    def cost_name(self) -> str:
        """Return the name of replicas with the same costs: same model, weights, devices and step cache."""
        weights = hashlib.sha256(f"{self.base_model}|{self.transformer_model}|{self.settings.dtype}".encode())
        gpus, cache = self.settings.gpus_per_generator, self.settings.turbo.step_cache
        devices = self.profile.value if gpus == 1 else f"{self.profile.value}x{gpus}"
        name = f"{self.card.id}@{devices}-{weights.hexdigest()[:12]}"
        return name if cache is None else f"{name}-cache{cache:g}"

    def retuned(self, changes: Mapping[str, Any] | None) -> Self:
        """Return the plan with the `user_config` of one of its deployments; see `Settings.retuned`."""
        return self.model_copy(update={"settings": self.settings.retuned(changes or {})})

    @property
    def notice(self) -> str | None:
        """Return a notice for clients, for example that this is a demo; None if there is none."""
        if not self.demo:
            return None
        return (
            f"DEMO: this service runs a tiny checkpoint on the CPU{self._what_it_knows}. Its videos show that "
            f"everything works, not what {self.card.title} looks like. Start it where Ray has a GPU to serve the real "
            "model."
        )

    @property
    def _what_it_knows(self) -> str:
        return f", which {self.card.demo_knows}" if self.card.demo_knows else ""


class ServicePlan(BaseModel):
    """What the whole service does: its settings, and a plan for each of its models."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    models: tuple[ModelPlan, ...]  # in the order of the arg `models`

    @property
    def gpus_by_model(self) -> Mapping[str, int]:
        """Return how many GPUs each render of a model takes, by the model's id."""
        return {model.card.id: model.settings.gpus_per_generator for model in self.models}

    def retuned(self, changes: Mapping[str, Any] | None) -> Self:
        """Return the plan with the `user_config` of the Ingress; what an entry of `models` sets stays its own."""
        settings = self.settings.retuned(changes or {})
        models = (
            plan.model_copy(update={"settings": own})
            for plan, own in zip(self.models, settings.each_model(), strict=True)
        )
        return self.model_copy(update={"settings": settings, "models": tuple(models)})
