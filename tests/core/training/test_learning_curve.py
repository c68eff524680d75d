"""Whether more corrections help, from the rounds so far."""

from __future__ import annotations

import pytest

from napari_unet.core.training.model_comparison import (
    CorrectionRound,
    add_round,
    advise,
    compare_models,
    count_taught,
    gain_of_doubling,
    get_rounds,
)


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
