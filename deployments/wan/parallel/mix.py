"""The mix of guidance, Ulysses and ring parallelism: a pure function from ranks, heads and tokens.

Example:
    best_mix(4, heads=40, tokens=45_056, guided=True)  # guidance 2 x ulysses 2

Guidance comes first: its two branches exchange one small tensor a step, 6 MB at 1024x1024x41. Ulysses exchanges four
tensors a layer, each the share of a rank of all tokens; a ring moves the keys and values of all tokens to every rank,
which is more from three ranks on (arXiv 2405.07719, table 2). So a ring is for what the heads cannot be divided by.
"""

from math import gcd

from serve_app.results import Parallelism

BRANCHES = 2  # of guidance: with the prompt, and with the negative prompt


def best_mix(ranks: int, *, heads: int, tokens: int, guided: bool) -> Parallelism:
    """Return how `ranks` ranks share a denoising step.

    Args:
        ranks: processes, each with one GPU.
        heads: attention heads of the expert.
        tokens: of the video; see `ModelCard.token_count`.
        guided: whether a step runs the expert twice.

    Raises:
        ValueError: there are fewer tokens than ranks to share them.
    """
    guidance = BRANCHES if guided and ranks % BRANCHES == 0 else 1
    sequence = ranks // guidance
    if tokens < sequence:
        raise ValueError(f"{tokens} tokens cannot be shared by {sequence} ranks; ask for more pixels or frames")
    ulysses = gcd(sequence, heads)
    if ulysses < sequence and tokens % sequence:
        ulysses = 1  # Ulysses and a ring together need equal shares
    return Parallelism(guidance=guidance, ulysses=ulysses, ring=sequence // ulysses)
