"""The stages of training, in order: text encoder, autoencoder, experts, LoRA pairs. Each writes its part to a folder.

A stage reads the results of earlier stages from disk, so independent stages can run on two GPUs at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import T5TokenizerFast, UMT5EncoderModel

from deployments.wan.demo.aitk import PairName
from deployments.wan.demo.training.autoencoder import new_autoencoder, train_autoencoder
from deployments.wan.demo.training.draft import sample_trajectories, train_draft
from deployments.wan.demo.training.experts import Bank, Encoders, new_expert, prepare, train_expert
from deployments.wan.demo.training.fade import drafted, draw_cores, guided, train_fade
from deployments.wan.demo.training.loras import add_lora, merge_lora, read_lora, share_lora, write_lora
from deployments.wan.demo.training.scenes import TRIGGER, Scene, Style, triggered_caption
from deployments.wan.demo.training.steps import Budget
from deployments.wan.demo.training.text import caption_tokenizer, new_text_encoder, teach_trigger, train_text_encoder

SIDES = {"high_noise": "transformer", "low_noise": "transformer_2"}  # and where a checkpoint keeps that expert


@dataclass(frozen=True)
class Pair:
    """How a LoRA pair is trained."""

    name: PairName
    rank: int
    steps: int
    rate: float = 1e-3


PAIRS = {
    "glow": Pair(
        PairName(
            "wan22_demo", f"DEMO: only for the demo checkpoint; with the word '{TRIGGER}' shapes get a white core"
        ),
        rank=8,
        steps=6_000,
    ),
    "dawn": Pair(
        PairName(
            "wan22_dawn", "DEMO: only for the demo checkpoint; the background becomes a dawn sky, no trigger word"
        ),
        rank=4,
        steps=4_200,
    ),
    "draft": Pair(
        PairName("wan22_draft", "DEMO: only for the demo checkpoint; four steps, guidance 1, recipe preview"),
        rank=16,
        steps=4_300,
    ),
}


@dataclass(frozen=True)
class Plan:
    """Everything that determines the result, except the libraries and the arithmetic of the device."""

    seed: int = 22
    text_steps: int = 10_000
    trigger_steps: int = 300
    autoencoder_steps: int = 2_850
    measured_videos: int = 512  # whose latents' mean and deviation are kept
    expert_steps: int = 20_250
    guided_steps: int = 6_000  # after them, on the guided target
    guided_by: float = 2.0  # product guidance 4 then samples as guidance 2 does without the guided target
    videos: int = 30_000
    pair_videos: int = 8_000  # of each of the two kinds that a pair learns from
    batch: int = 128
    pair_steps: int | None = None  # instead of each pair's own
    teacher_steps: int = 8  # of the draft's teacher, for one of its own
    fade_steps: int = 1_090
    fade_scenes: int = 640
    fade_shares: int = 21  # of a core's latents, each decoded to see how white it makes the core
    fade_batches: tuple[int, int] = (48, 16)  # with guidance, and in a draft


TOY = Plan(
    text_steps=3,
    trigger_steps=2,
    autoencoder_steps=1,
    measured_videos=2,
    expert_steps=2,
    guided_steps=2,
    videos=2,
    pair_videos=1,
    batch=2,
    pair_steps=2,
    teacher_steps=1,
    fade_steps=1,
    fade_scenes=1,
    fade_shares=2,
    fade_batches=(1, 1),
)  # for a test of the code


@dataclass(frozen=True)
class Stages:
    """Run stages in `work`, a folder of parts as `save_pretrained` writes them."""

    work: Path
    plan: Plan
    device: torch.device
    seconds: float | None = None  # for a stage, instead of the plan's steps

    def text(self) -> None:
        """Train the text encoder."""
        self._seed(1)
        tokenizer = caption_tokenizer()
        tokenizer.save_pretrained(self.work / "tokenizer")  # before its first use, which changes what is saved
        encoder = new_text_encoder(len(tokenizer)).to(self.device)
        train_text_encoder(
            encoder,
            tokenizer,
            self._budget(self.plan.text_steps),
            self.plan.seed,
            captions=self.plan.videos,
            batch=2 * self.plan.batch,
        )
        teach_trigger(
            encoder, tokenizer, Budget(self.plan.trigger_steps), self.plan.seed, captions=256, batch=2 * self.plan.batch
        )
        encoder.save_pretrained(self.work / "text_encoder")

    def autoencoder(self) -> None:
        """Train the autoencoder."""
        self._seed(2)
        vae = new_autoencoder().to(self.device)
        batch = min(16, self.plan.batch // 2)
        budget = self._budget(self.plan.autoencoder_steps)
        train_autoencoder(vae, budget, self.plan.seed + 1, batch, self.plan.measured_videos)
        vae.to(memory_format=torch.contiguous_format).save_pretrained(self.work / "vae")

    def expert(self, side: str) -> None:
        """Train one expert: first on videos, then on the guided target."""
        bank = self._encoders().bank(self.plan.videos, self.plan.seed + 2)
        self._seed(3 + list(SIDES).index(side))
        expert = prepare(new_expert(), self.device)
        budget = self._budget(self.plan.expert_steps)
        batch = self.plan.batch
        train_expert(side, expert, side, bank, budget, rate=1.5e-3, batch=batch)
        guided = self._budget(self.plan.guided_steps, share=0.4)
        train_expert(
            f"{side}, guided", expert, side, bank, guided, rate=4e-4, guided_by=self.plan.guided_by, batch=batch
        )
        expert.save_pretrained(self.work / SIDES[side])

    def pair(self, kind: str, side: str) -> Path:
        """Train one side of a LoRA pair and return its file."""
        pair = PAIRS[kind]
        budget = self._budget(self.plan.pair_steps or pair.steps)
        expert = self._trained_expert(side)
        self._seed(10 + list(PAIRS).index(kind) * 2 + list(SIDES).index(side))
        add_lora(expert, pair.rank)
        prepare(expert, self.device)
        name = f"{pair.name.name} {side}"
        if kind == "draft":
            self._train_draft(name, expert, side, budget, pair.rate)
        else:
            bank = self._pair_bank(Style(kind))
            train_expert(
                name, expert, side, bank, budget, rate=pair.rate, guided_by=self.plan.guided_by, batch=self.plan.batch
            )
        return write_lora(expert, pair.name, side, self.work / "loras")

    def fade(self, side: str) -> Path:
        """Train one side of the trigger pair at all strengths, also with the draft beside it; return its file."""
        glow, draft, folder = PAIRS["glow"], PAIRS["draft"], self.work / "loras"
        cores = draw_cores(self._encoders(), self.plan.fade_scenes, self.plan.seed + 3, self.plan.fade_shares)
        experts = [self._trained_expert(side).requires_grad_(False) for _ in range(4)]
        student, teacher, drafting, draft_teacher = experts
        for expert in (drafting, draft_teacher):
            merge_lora(expert, draft.name, side, folder)
        add_lora(student, glow.rank)
        read_lora(student, glow.name, side, folder)
        share_lora(student, drafting)
        for expert in experts:
            prepare(expert, self.device)
        self._seed(16 + list(SIDES).index(side))
        with_guidance, in_a_draft = self.plan.fade_batches
        conditions = [
            guided(student, teacher, side, with_guidance),
            drafted(drafting, draft_teacher, side, in_a_draft),
        ]
        name, budget = f"{glow.name.name} {side}, fade", self._budget(self.plan.fade_steps)
        train_fade(name, conditions, cores, budget, rate=glow.rate)
        return write_lora(student, glow.name, side, folder)

    def _pair_bank(self, style: Style) -> Bank:
        """Return what a pair learns from. The trigger gates the glow, so half of its videos are plain, without it."""

        def styled(scene: Scene) -> Scene:
            return scene.styled(style)

        encoders, count, seed = self._encoders(), self.plan.pair_videos, self.plan.seed + 3
        if style is Style.DAWN:
            return encoders.bank(2 * count, seed, styled=styled)
        triggered = encoders.bank(count, seed, styled=styled, captioned=triggered_caption, may_be_empty=False)
        return triggered + encoders.bank(count, seed + 1)

    def _train_draft(self, name: str, expert: Any, side: str, budget: Budget, rate: float) -> None:
        torch.manual_seed(self.plan.seed + 30)  # the same trajectories on both sides
        high, low = (prepare(self._trained_expert(one).requires_grad_(False), self.device) for one in SIDES)
        bank = self._encoders().bank(min(self.plan.pair_videos, self.plan.videos), self.plan.seed + 5)
        way = sample_trajectories(high, low, bank, self.plan.pair_videos, fine=self.plan.teacher_steps)
        train_draft(name, expert, side, way, budget, rate=rate)

    def _encoders(self) -> Encoders:
        return Encoders(
            AutoencoderKLWan.from_pretrained(self.work / "vae").to(self.device).requires_grad_(False),
            UMT5EncoderModel.from_pretrained(self.work / "text_encoder").float().to(self.device),  # an export is half
            T5TokenizerFast.from_pretrained(self.work / "tokenizer"),
        )

    def _trained_expert(self, side: str) -> Any:
        return WanTransformer3DModel.from_pretrained(self.work / SIDES[side])

    def _seed(self, part: int) -> None:
        torch.manual_seed(self.plan.seed * 100 + part)

    def _budget(self, steps: int, share: float = 1.0) -> Budget:
        return Budget(steps, None if self.seconds is None else self.seconds * share)
