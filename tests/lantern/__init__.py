"""A made-up third model: one expert, with strides, divisors and defaults of its own. See card.yaml."""

from pathlib import Path

CARD = Path(__file__).with_name("card.yaml")
