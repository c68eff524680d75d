"""A tuned model is better, worse, or there is no telling; and the sentence says why."""

from __future__ import annotations

import pytest

from napari_unet.core.training.model_comparison import (
    CorrectionRound,
    TaughtScores,
    add_round,
    advise,
    compare_models,
    count_taught,
    gain_of_doubling,
    get_rounds,
)


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


def test_what_was_forgotten_and_what_was_gained_are_told_apart():
    lost = compare_models("AP50", (0.5, 0.7), (0.9, 0.8), 30)
    assert lost.forgotten and lost.to_json()["forgotten"] and not lost.gains
    assert compare_models("AP50", (0.5, 0.52), (0.9, 0.891), 30).gains
    assert not compare_models("AP50", (0.5, 0.52), (0.9, 0.889), 30).gains
    assert not compare_models("AP50", (0.5, 0.5), (0.9, 0.9), 30).gains
    assert not compare_models("AP50", None, None, 0).forgotten


@pytest.mark.parametrize(
    ("held", "taught", "keep", "sentence"),
    [
        (
            None,
            TaughtScores(0.1, 0.6, 8, 90, 80, 85, 1, 5),
            True,
            "Of 8 corrected objects it finds 5, before 1: keep it.",
        ),
        (None, TaughtScores(0.6, 0.6, 8, 90, 80, 85, 5, 5), True, "it finds 5, before 5."),
        (None, TaughtScores(0.6, 0.1, 8, 90, 80, 85), False, "even on the corrections"),
        (None, TaughtScores(0.6, 0.5, 8, 90, 80, 85), True, "Too little is known."),  # chance
        ((0.5, 0.7), TaughtScores(0.6, 0.1, 8, 90, 80, 85), True, "on what it was not shown."),
        ((0.5, 0.51), TaughtScores(0.6, 0.1, 8, 90, 80, 85), False, "even on the corrections"),
        ((0.5, 0.7), TaughtScores(0.1, 0.6, 8, 90, 80, 9), False, "9 objects where 90 are"),
        ((0.5, 0.7), TaughtScores(0.1, 0.6, 8, 90, 80, 900), False, "900 objects where 90 are"),
        (None, TaughtScores(0.1, 0.6, 8, 90, 9, 80), True, "keep it."),  # it finds them now
        (None, TaughtScores(0.1, 0.6, 3, 3, 3, 40), True, "keep it."),  # too few to tell
    ],
)
def test_one_that_cannot_be_measured_is_kept_unless_it_lost_what_it_was_taught(
    held, taught, keep, sentence
):
    found = compare_models("AP50", held, None, 30, "Too little is known.", taught=taught)
    assert found.keep == keep
    assert sentence in found.reason
    assert (found.to_json()["taught_before"], found.taught_after) == (taught.before, taught.after)


def test_of_deletions_alone_it_is_not_said_how_many_objects_are_found():
    deleted = TaughtScores(0.0, 0.0, 0, 90, 80, 85)
    found = compare_models("AP50", None, None, 0, "Too little is known.", taught=deleted)
    assert found.keep and found.reason == "Too little is known."


def test_the_way_back_must_gain_something_on_what_was_taught():
    gains = TaughtScores(0.1, 0.6, 8, 90, 80, 85)
    assert compare_models("AP50", None, None, 0, taught=gains).gains
    assert not compare_models("AP50", None, None, 0).gains


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


def rounds(*scores, objects=(0, 10, 20, 40, 80, 160)):
    return [CorrectionRound(n, score) for n, score in zip(objects, scores, strict=False)]


@pytest.mark.parametrize(("count", "left"), [(0, "3 more rounds"), (2, "1 more round ")])
def test_with_few_rounds_it_is_too_early_to_tell(count, left):
    text = advise(rounds(0.3, 0.4)[:count])
    assert text.startswith("Too early to tell")
    assert left in text


def test_a_rising_curve_asks_for_more():
    text = advise(rounds(0.3, 0.4, 0.5, 0.6))
    assert "likely to help" in text
    assert "40 more objects" in text


def test_a_flat_curve_has_had_enough():
    assert "hardly help" in advise(rounds(0.3, 0.7, 0.78, 0.785, 0.785, 0.785))
    assert "hardly help" in advise(rounds(0.7, 0.7, 0.7))


def test_a_falling_curve_is_said():
    assert "did not help" in advise(rounds(0.3, 0.7, 0.8, 0.6, 0.5, 0.4))


def test_the_gain_is_that_of_the_line():
    assert gain_of_doubling(
        [CorrectionRound(2**n - 1, 0.1 * n) for n in range(5)]
    ) == pytest.approx(0.1)
    assert gain_of_doubling([CorrectionRound(7, 0.5)] * 4) == 0


def test_rounds_travel_in_the_card():
    first = add_round({}, 20, compare_models("AP50", (0.4, 0.6), None, 50))
    assert first == [[0, 0.4], [20, 0.6]]
    second = add_round({"rounds": first}, 45, compare_models("AP50", (0.61, 0.7), None, 50))
    assert get_rounds({"rounds": second}) == [
        CorrectionRound(0, 0.4),
        CorrectionRound(20, 0.6),
        CorrectionRound(45, 0.7),
    ]
    assert add_round({}, 20, compare_models("AP50", None, None, 0)) == []


def test_classes_are_counted_in_pixels():
    """A head of classes has no objects; its curve must not look flat for that."""
    rounds_ = {}
    for pixels, (before, after) in ((400, (0.3, 0.4)), (900, (0.4, 0.55)), (2000, (0.55, 0.7))):
        taught = count_taught({"objects": 0, "known_px": pixels}, "IoU")
        rounds_ = {
            "rounds": add_round(rounds_, taught, compare_models("IoU", (before, after), None, 9))
        }
    text = advise(get_rounds(rounds_), "pixels")
    assert "likely to help: 2,000 more pixels" in text
    assert count_taught({"objects": 7, "known_px": 400}, "AP50") == 7


def test_one_more_is_one():
    assert ": 1 more object may" in advise(rounds(0.3, 0.5, 0.8, objects=(0, 1, 1)))
