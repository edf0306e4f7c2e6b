"""The demo's tokenizer: UMT5's kind (Unigram, the same special tokens), with a few hundred pieces."""

import math
import string
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace, Sequence, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import T5TokenizerFast

# Their ids are 0, 1 and 2, as in google/umt5-xxl.
_END = "</s>"
_UNKNOWN = "<unk>"
_SPECIAL_TOKENS = ["<pad>", _END, _UNKNOWN]

_CORPUS = """
a woman with red hair walks along the beach at sunset, waves rolling in behind her
a fox runs through fresh snow between dark pine trees, the camera follows from the side
an old man plays chess in the park while yellow leaves fall around the table
a city street at night in the rain, neon signs reflected in the wet asphalt, people with umbrellas
a close up of a cat on a windowsill watching birds, soft morning light
a boat drifts over a calm blue lake, mountains and white clouds in the distance
a dancer in a green dress turns slowly on an empty stage, smoke and spotlights
a steam train crosses a stone bridge, wide shot, cinematic, high detail, film grain
children fly paper kites on a green hill under a bright summer sky
blurry, low quality, distorted, static, overexposed, worst quality, watermark, text
a portrait in the style of an oil painting, vivid colors, strong brush strokes
slow motion of a glass of water breaking on a black floor, studio light
"""

_WORD_START = "▁"
_LETTER_SCORE = -10.0  # natural log of a probability; less likely than any word, so words win if they fit
_MAX_TOKENS = 512  # to which WanPipeline pads


def demo_tokenizer() -> Any:
    """Return a tokenizer of the words of the built-in corpus."""
    return tokenizer_of(_CORPUS.replace(",", " ").split())


def tokenizer_of(words: Iterable[str]) -> Any:
    """Return a tokenizer with `words` by their frequency, and single characters for everything else in ASCII.

    The library's own trainer is not used, because it is not deterministic.
    """
    tokenizer = Tokenizer(Unigram(_vocabulary(words), unk_id=_SPECIAL_TOKENS.index(_UNKNOWN)))
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Metaspace(_WORD_START)])
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, _SPECIAL_TOKENS.index(_END))]
    )
    return T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0, model_max_length=_MAX_TOKENS)


def _vocabulary(words: Iterable[str]) -> list[tuple[str, float]]:
    """Return pieces with the natural logs of their probabilities."""
    counts = Counter(words)
    scores = {_WORD_START + word: math.log(count / counts.total()) for word, count in sorted(counts.items())}
    letters = [_WORD_START, *string.printable.strip()]
    return [(token, 0.0) for token in _SPECIAL_TOKENS] + list((dict.fromkeys(letters, _LETTER_SCORE) | scores).items())
