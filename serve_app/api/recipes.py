"""Recipes: which sampler and flow shift the renders of a request use, with a warning if they are a guess."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from packaging.version import Version

from serve_app.api.lora_rules import ChosenLora
from serve_app.api.schemas.bodies import PromptItem
from serve_app.drafts import GUIDANCE_SCALE, Sampling
from serve_app.loras.formats.metadata import preview_sampler
from serve_app.models.card import ModelCard
from serve_app.spec import Recipe, Sampler


@dataclass(frozen=True, slots=True)
class RecipeChoice:
    """The scheduler of a recipe for these LoRAs, with its steps and guidance if a prompt names none.

    `shift` None is the base checkpoint's own.
    """

    recipe: Recipe
    sampler: Sampler
    shift: float | None
    assumed: bool
    trained_with: str | None
    sample_steps: int
    guidance_scale: float

    def for_prompt(self, prompt: PromptItem) -> "RecipeChoice":
        """Return this choice with what the prompt says itself; another sampler comes with its own default shift."""
        if prompt.sampler is None and prompt.shift is None:
            return self
        sampler = prompt.sampler or self.sampler
        shift = prompt.shift if prompt.shift is not None or sampler is not self.sampler else self.shift
        assumed = self.assumed and prompt.sampler is None
        return replace(self, sampler=sampler, shift=shift, assumed=assumed)

    @property
    def warnings(self) -> list[str]:
        """Return that the scheduler is a guess, if it is one."""
        if not self.assumed:
            return []
        why = (
            f"AI Toolkit {self.trained_with} came with either scheduler"
            if self.trained_with
            else "no LoRA's metadata names the AI Toolkit version that it was trained with"
        )
        shown = f"{self.sampler.value}, shift {self.shift:g}" if self.shift else self.sampler.value
        return [f"the previews' sampler was assumed to be {shown}: {why}; set `sampler` to choose"]


def choose_recipe(
    recipe: Recipe, loras: Sequence[ChosenLora], card: ModelCard, draft: Sampling | None = None
) -> RecipeChoice:
    """Return the recipe's scheduler: for `preview`, that of the newest AI Toolkit among those that made the LoRAs.

    A request for a draft, which only a server with a `draft` accepts, takes its scheduler and steps, and no guidance.
    """
    version = _newest(tuple(lora.file.contents.provenance.trained_with for lora in loras))
    steps, guidance = card.defaults.sample_steps, card.defaults.guidance_scale
    if recipe is Recipe.PREVIEW:
        preview = preview_sampler(version)
        shift = card.default_shift(preview.sampler)
        return RecipeChoice(recipe, preview.sampler, shift, preview.assumed, version, steps, guidance)
    if recipe is Recipe.DRAFT and draft is not None:
        shift = card.default_shift(draft.sampler) if draft.shift is None else draft.shift
        return RecipeChoice(recipe, draft.sampler, shift, False, version, draft.sample_steps, GUIDANCE_SCALE)
    return RecipeChoice(recipe, Sampler.UNIPC, None, False, version, steps, guidance)


@lru_cache(maxsize=4096)  # to parse a version takes longer than the rest of the choice
def _newest(versions: tuple[str | None, ...]) -> str | None:
    return max((version for version in versions if version), key=Version, default=None)
