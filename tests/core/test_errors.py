"""What is said of names that strangers chose."""

from napari_unet.core.errors import LONGEST, InputError, ModelError


def test_a_message_is_one_line_that_every_terminal_can_print() -> None:
    error = InputError("a\nb\ud800é\x1b[31m.tif cannot be read.")
    assert str(error) == "a\\nb\\ud800é\\x1b[31m.tif cannot be read."
    str(error).encode()


def test_what_is_quoted_without_end_is_cut_in_the_middle() -> None:
    text = str(ModelError(f"The schema is {'x' * 5000}; update napari-unet."))
    assert len(text) == LONGEST
    assert text.startswith("The schema is x") and text.endswith("x; update napari-unet.")
    assert "x … x" in text
    short = "y" * LONGEST
    assert str(ModelError(short)) == short
