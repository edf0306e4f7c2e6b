"""What is said about LoRA files that may be a mistake."""

from dataclasses import replace

from serve_app.loras.formats import Layout, LoraContents, Provenance
from serve_app.loras.warnings import of_file, of_pair
from serve_app.spec import Expert

PLAIN = LoraContents(Layout.AI_TOOLKIT, {None: ()}, (), Provenance())
COMBINED = LoraContents(Layout.AI_TOOLKIT, {Expert.HIGH: (), Expert.LOW: ()}, (), Provenance())


def test_another_base_model_in_the_metadata() -> None:
    (warning,) = of_file("x", replace(PLAIN, provenance=Provenance(other_base="Wan 2.1")), Expert.HIGH)
    assert "names another base model in its metadata: Wan 2.1" in warning
    assert of_file("x", PLAIN, Expert.HIGH) == []


def test_a_file_on_the_side_that_its_name_speaks_against() -> None:
    (warning,) = of_file("a_low_noise.safetensors", PLAIN, Expert.HIGH)
    assert "looks like a LoRA for the low noise expert and is used for the high noise one" in warning
    assert of_file("a_low_noise.safetensors", PLAIN, Expert.LOW) == []
    assert of_file("a_low_noise.safetensors", COMBINED, Expert.HIGH) == []
    assert of_file("a_low_noise.safetensors", PLAIN, Expert.ONLY) == []


def test_tensors_that_are_left_out_are_counted() -> None:
    (warning,) = of_file("a", replace(PLAIN, left_out=("x.alpha", "y.alpha")), Expert.HIGH)
    assert "2 tensors have no place" in warning
    assert "x.alpha" in warning


def test_one_file_for_both_experts() -> None:
    assert of_pair([(Expert.HIGH, "a"), (Expert.LOW, "b"), (Expert.LOW, "b")]) == []
    assert "both experts" in of_pair([(Expert.HIGH, "a"), (Expert.LOW, "a")])[0]
