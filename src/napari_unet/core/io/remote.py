"""OME-Zarr on other computers, read through fsspec; needs the extra ``remote``."""

from __future__ import annotations

from napari_unet.core.errors import InputError
from napari_unet.core.io.readers import Opened, read_zarr

SCHEMES = ("http", "https", "s3")
_NEEDS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs"}


def is_address(source: object) -> bool:
    """Tell whether a source is an address on another computer."""
    return isinstance(source, str) and "://" in source


def read_address(address: str, level: int = 0) -> Opened:
    """Open a Zarr array or a level of an OME-Zarr lazily.

    Raises
    ------
    InputError
        An unknown kind of address, an extra that is not installed, or nothing readable there.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise InputError(f"{address} is of no known kind; give http://, https:// or s3://.")
    try:
        import importlib

        importlib.import_module("fsspec")
        importlib.import_module(_NEEDS[scheme])
    except ImportError as error:
        raise InputError(
            f"{address} needs {error.name}; install it: pip install 'napari-unet[remote]'."
        ) from error
    try:
        return read_zarr(address.rstrip("/"), level)
    except InputError:
        raise
    except Exception as error:  # each kind of store has errors of its own
        lines = str(error).strip().splitlines()
        reason = lines[0][:160] if lines else type(error).__name__
        raise InputError(
            f"{address} cannot be read as Zarr ({reason}); check the address and the network."
        ) from error
