"""What is said of names that strangers chose."""

from napari_unet.core.errors import InputError


def test_a_message_is_one_line_that_every_terminal_can_print() -> None:
    error = InputError("a\nb\ud800é\x1b[31m.tif cannot be read.")
    assert str(error) == "a\\nb\\ud800é\\x1b[31m.tif cannot be read."
    str(error).encode()
