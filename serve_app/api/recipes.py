"""Recipes: which scheduler a request's renders take, and what the client should know about that choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from packaging.version import Version

from serve_app.api.lora_rules import ChosenLora
from serve_app.api.schemas.bodies import PromptItem
from serve_app.loras.formats.metadata import preview_sampler
from serve_app.models.card import ModelCard
from serve_app.spec import Recipe, Sampler


@dataclass(frozen=True, slots=True)
class RecipeChoice:
    """The scheduler of a recipe for these LoRAs. `shift` None is the base checkpoint's own."""

    recipe: Recipe
    sampler: Sampler
    shift: float | None
    assumed: bool
    trained_with: str | None

    def for_prompt(self, prompt: PromptItem) -> "RecipeChoice":
        """Return this choice with what the prompt says itself; another sampler comes with its own default shift."""
        if prompt.sampler is None and prompt.shift is None:
            return self
        sampler = prompt.sampler or self.sampler
        shift = prompt.shift if prompt.shift is not None or sampler is not self.sampler else self.shift
        assumed = self.assumed and prompt.sampler is None
        return RecipeChoice(self.recipe, sampler, shift, assumed, self.trained_with)

    @property
    def warnings(self) -> list[str]:
        """Return that the scheduler is a guess, where it is one."""
        if not self.assumed:
            return []
        why = (
            f"AI Toolkit {self.trained_with} came with either scheduler"
            if self.trained_with
            else "no LoRA's metadata names the AI Toolkit version that it was trained with"
        )
        shown = f"{self.sampler.value}, shift {self.shift:g}" if self.shift else self.sampler.value
        return [f"the previews' sampler was assumed to be {shown}: {why}; set `sampler` to choose"]


def choose_recipe(recipe: Recipe, loras: Sequence[ChosenLora], card: ModelCard) -> RecipeChoice:
    """Return the recipe's scheduler: for `preview`, that of the newest AI Toolkit among those that made the LoRAs."""
    version = _newest(tuple(lora.file.contents.provenance.trained_with for lora in loras))
    if recipe is Recipe.REFERENCE:
        return RecipeChoice(recipe, Sampler.UNIPC, None, assumed=False, trained_with=version)
    preview = preview_sampler(version)
    shift = card.default_shift(preview.sampler)
    return RecipeChoice(recipe, preview.sampler, shift, preview.assumed, trained_with=version)


@lru_cache(maxsize=4096)  # to parse a version takes longer than the rest of the choice
def _newest(versions: tuple[str | None, ...]) -> str | None:
    return max((version for version in versions if version), key=Version, default=None)
