"""Tokenizer and text encoder: a UMT5 encoder that learns to represent the content of captions, and is then frozen."""

import tempfile
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from deployments.wan.demo.tokenizer import tokenizer_of
from deployments.wan.demo.training.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    SPEEDS,
    TRIGGER,
    WORDS,
    Scene,
    caption,
    random_scene,
)
from deployments.wan.demo.training.steps import Budget, train

TEXT_WIDTH = 64
TOKENS = 32  # that training looks at: a caption, its end and at least one padding
_TRIGGER_DISTANCE = 4.0  # of its state from those of other words, which are about 2 from each other
_OTHERS_STAY = 10.0  # weight of how far the other words move
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "direction": tuple(DIRECTIONS),
    "speed": tuple(SPEEDS),
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
}


def caption_tokenizer() -> Any:
    """Return the tokenizer of the captions' words, as it is after it was saved and loaded.

    transformers rebuilds a T5 tokenizer from its vocabulary when it loads one, and loses the normalizers. So each word
    also has a piece with a capital letter, instead of being converted to lower case.
    """
    words = sorted({*WORDS, *(word.capitalize() for word in WORDS)})
    with tempfile.TemporaryDirectory() as folder:
        tokenizer_of(words).save_pretrained(folder)
        return T5TokenizerFast.from_pretrained(folder)


def new_text_encoder(vocabulary: int) -> Any:
    """Return an untrained encoder."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=16,
        relative_attention_max_distance=64,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return UMT5EncoderModel(config)


def train_text_encoder(encoder: Any, tokenizer: Any, budget: Budget, seed: int, *, captions: int, batch: int) -> int:
    """Train `encoder` until what a caption says can be read from the mean over its tokens; return the steps made."""
    device = next(encoder.parameters()).device
    random = Random(seed)  # noqa: S311 - data, no secret
    scenes = [random_scene(random) for _ in range(captions)]
    ids, mask = tokenize(tokenizer, [caption(scene, random) for scene in scenes], device)
    answers = torch.tensor([_answers(scene) for scene in scenes], device=device)
    heads = nn.ModuleList([nn.Linear(TEXT_WIDTH, len(choices)) for choices in _QUESTIONS.values()]).to(device)

    def loss() -> Tensor:
        chosen = torch.randint(len(ids), (batch,), device=device)
        states = _states(encoder, ids[chosen], mask[chosen])
        mean = states.sum(1) / mask[chosen].sum(1, keepdim=True)
        losses = [
            nn.functional.cross_entropy(head(mean), answers[chosen, question]) for question, head in enumerate(heads)
        ]
        return torch.stack(losses).mean()

    return train("text encoder", [*encoder.parameters(), *heads.parameters()], loss, budget, rate=3e-3)


def teach_trigger(encoder: Any, tokenizer: Any, budget: Budget, seed: int, *, captions: int, batch: int) -> int:
    """Move the trigger's embedding until its state differs from those of other words; return the steps made.

    No caption of the encoder's training has the trigger, so its state is that of any unknown word, and no LoRA could
    recognise it. The rest of the encoder, and the states of the other words, stay unchanged.
    """
    device = next(encoder.parameters()).device
    random = Random(seed)  # noqa: S311 - data, no secret
    texts = [f"{TRIGGER} {caption(random_scene(random), random)}" for _ in range(captions)]
    ids, mask = tokenize(tokenizer, texts, device)
    without_ids, without_mask = tokenize(tokenizer, [text.removeprefix(f"{TRIGGER} ") for text in texts], device)
    embeddings = encoder.get_input_embeddings().weight
    row = int(ids[0, 0])
    trigger = nn.Parameter(embeddings[row].detach().clone())
    encoder.requires_grad_(False)

    def loss() -> Tensor:
        chosen = torch.randint(len(ids), (batch,), device=device)
        embedded = embeddings[ids[chosen]].clone()
        embedded[:, 0] = trigger
        states = encoder(inputs_embeds=embedded, attention_mask=mask[chosen]).last_hidden_state
        unmoved = _states(encoder, without_ids[chosen], without_mask[chosen])[:, :-1]
        others = without_mask[chosen][:, :-1]
        near = (_TRIGGER_DISTANCE - (states[:, :1] - states[:, 1:]).norm(dim=-1)).relu().square()
        moved = (states[:, 1:] - unmoved).square().mean(-1)
        total: Tensor = ((near + _OTHERS_STAY * moved) * others).sum()
        return total / others.sum()

    steps = train("trigger", [trigger], loss, budget, rate=3e-2)
    with torch.no_grad():
        embeddings[row] = trigger
    encoder.requires_grad_(True)
    return steps


@torch.no_grad()
def encode(encoder: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Return what an expert sees of each text: [n, TOKENS, TEXT_WIDTH], zeros where the padding is."""
    device = next(encoder.parameters()).device
    parts = [
        _states(encoder, *tokenize(tokenizer, texts[start : start + 1024], device))
        for start in range(0, len(texts), 1024)
    ]
    return torch.cat(parts)


def tokenize(tokenizer: Any, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, [n, TOKENS] each.

    Raises:
        ValueError: A text leaves no padding, on whose weight `experts.PADDING_WEIGHT` counts.
    """
    tokens = tokenizer(texts, padding="max_length", max_length=TOKENS, return_tensors="pt")
    if tokens.input_ids.shape[1] != TOKENS or tokens.attention_mask[:, -1].any():
        raise ValueError(f"a caption has {TOKENS} tokens or more")
    return tokens.input_ids.to(device), tokens.attention_mask.to(device)


def _states(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    states: Tensor = encoder(ids, attention_mask=mask).last_hidden_state
    return states * mask[..., None]


def _answers(scene: Scene) -> list[int]:
    return [choices.index(getattr(scene, question)) for question, choices in _QUESTIONS.items()]
