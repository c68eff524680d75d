"""Errors that the user can solve, by what they are about."""

from __future__ import annotations


class UnetError(Exception):
    """A problem that the user can solve; its one-line message says how.

    The message names what was given, what is allowed and what to do next. The command line prints
    it and exits with status 2; the window shows it as a notification. Names of files and entries
    come from strangers: characters that would break the line are shown as Python writes them.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class InputError(UnetError):
    """An image, label or folder that cannot be used."""


class SettingsError(UnetError):
    """A setting outside its allowed values."""


class ModelError(UnetError):
    """A model that is unknown, damaged or unfit for the image."""


class DeviceError(UnetError):
    """A device that is unknown or not present."""


class OutputError(UnetError):
    """A result that cannot be written where it was asked for."""


class DivergedError(UnetError):
    """A training whose loss became infinite or NaN; the best model before that is kept."""
