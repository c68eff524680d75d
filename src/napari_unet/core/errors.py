"""Errors that the user can solve, by what they are about."""

from __future__ import annotations

LONGEST = 1200
"""Longer messages, which quote something endless, are cut in the middle, to so many characters."""
_GAP = " … "


class UnetError(Exception):
    """A problem that the user can solve; its one-line message says how.

    The message names what was given, what is allowed and what to do next. The command line prints
    it and exits with status 2; the window shows it as a notification. Names of files and entries
    come from strangers: characters that would break the line are shown as Python writes them, and
    of what is longer than `LONGEST` the middle is left out.
    """

    def __str__(self) -> str:
        text = super().__str__()
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        if len(line) <= LONGEST:
            return line
        end = LONGEST // 3
        return line[: LONGEST - end - len(_GAP)] + _GAP + line[-end:]


class InputError(UnetError):
    """An image, label or folder that cannot be used."""


class SettingsError(UnetError):
    """A setting outside its allowed values."""


class ModelError(UnetError):
    """A model that is unknown, damaged or unfit for the image."""


class UntrustedError(ModelError):
    """A network that is a program, and the user has not said that it may run."""


class OwnTestError(ModelError):
    """A network that fails its own test, or cannot be run on noise; it can be kept anyway.

    Parameters
    ----------
    problem
        What went wrong, as a sentence.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        said = problem.removesuffix(".")
        super().__init__(f"{said}; ask its authors, or import it anyway (--anyway).")


class DeviceError(UnetError):
    """A device that is unknown or not present."""


class ConnectionLostError(DeviceError):
    """A server that does not answer any more, or never did."""


class OutputError(UnetError):
    """A result that cannot be written where it was asked for."""


class DivergedError(UnetError):
    """A training whose loss became infinite or NaN; the best model before that is kept."""
