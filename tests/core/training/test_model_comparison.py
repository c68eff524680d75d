"""A tuned model is better, worse, or there is no telling; and the sentence says why."""

from __future__ import annotations

import pytest

from napari_unet.core.training.model_comparison import compare_models


@pytest.mark.parametrize(
    ("held", "replay", "verdict"),
    [
        ((0.5, 0.7), (0.9, 0.9), "better"),
        ((0.5, 0.7), None, "better"),
        ((0.7, 0.5), (0.9, 0.9), "worse"),
        ((0.5, 0.9), (0.9, 0.8), "worse"),  # learned, but forgot
        ((0.5, 0.7), (0.9, 0.885), "better"),
        ((0.5, 0.52), (0.9, 0.9), "not measurable"),  # not even one object of thirty
        (None, (0.9, 0.9), "not measurable"),
        (None, (0.9, 0.8), "worse"),
        (None, None, "not measurable"),
    ],
)
def test_verdicts(held, replay, verdict):
    found = compare_models("AP50", held, replay, objects=30, reason="Too little is known.")
    assert found.verdict == verdict
    assert found.keep == (verdict != "worse")


def test_few_objects_decide_nothing():
    assert compare_models("AP50", (0.5, 0.7), None, objects=3).verdict == "not measurable"


def test_on_few_crops_a_little_less_may_be_chance():
    assert compare_models("AP50", (0.5, 0.7), (0.64, 0.6), 30, replay_objects=300).keep
    assert not compare_models("AP50", (0.5, 0.7), (0.64, 0.6), 30, replay_objects=3000).keep
    assert not compare_models("AP50", (0.5, 0.7), (0.64, 0.5), 30, replay_objects=300).keep


def test_the_sentence_has_the_figures():
    text = str(compare_models("AP50", (0.5, 0.7), (0.9, 0.91), objects=30))
    assert text.startswith("better: ")
    assert "AP50 0.500 -> 0.700" in text
    assert "0.900 -> 0.910" in text
    text = str(compare_models("IoU", None, None, 0, "With 1 known object nothing can be held out."))
    assert text == "not measurable: With 1 known object nothing can be held out."


def test_the_card_gets_plain_values():
    values = compare_models("AP50", (0.51234567, 0.7), None, objects=30).to_json()
    assert values["before"] == 0.5123
    assert values["replay_after"] is None


@pytest.mark.parametrize(
    ("metric", "objects", "share"),
    [("AP50", 9, "9 objects held out"), ("AP50", 1, "1 object held out"),
     ("IoU", 39, "pixels held out")],
)  # fmt: skip
def test_what_was_held_out_is_counted_in_its_own_unit(metric, objects, share):
    found = compare_models(metric, (0.5, 0.5), None, objects)
    assert found.share == share
    assert str(found).startswith(f"not measurable: The difference on the {share} may be chance (")
