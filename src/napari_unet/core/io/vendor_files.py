"""Files of microscopes, which the extra ``formats`` reads: CZI, LIF and ND2 by bioio, OIF and OIB.

Planes are read when they are asked for. A scene of a file is an image of its own. The library that
reads CZI is in C++ and works in a process of its own (`reader_process`); the others are in Python.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import to_um
from napari_unet.core.io.czi_directory import check_czi
from napari_unet.core.io.files import APART_SUFFIXES, Opened, first_line
from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.reader_process import read_apart
from napari_unet.core.io.size_claims import check_claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PACKAGES = {
    ".czi": "bioio_czi",
    ".lif": "bioio_lif",
    ".nd2": "bioio_nd2",
    ".oif": "oiffile",
    ".oib": "oiffile",
}


def find_vendor_reader(path: Path, series: int | None) -> Callable[[], Opened]:
    """Return what opens a scene of a microscope's file, see `read`.

    Raises
    ------
    InputError
        The package that reads it is not installed.
    """
    if path.suffix.lower() not in APART_SUFFIXES:
        import_package(path)
        return partial(read, path, series)
    package = _PACKAGES[path.suffix.lower()]
    if importlib.util.find_spec(package) is None:
        raise _missing(path, package)
    return partial(read_apart, path, __name__, series)


def import_package(path: Path) -> str:
    """Import the package that reads a file, and return its name.

    Raises
    ------
    InputError
        It is not installed.
    """
    package = _PACKAGES[path.suffix.lower()]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise _missing(path, error.name or package) from error
    return package


def _missing(path: Path, package: str) -> InputError:
    return InputError(
        f"{path} needs {package.replace('_', '-')}; install it: pip install 'napari-unet[formats]'."
    )


def read(path: Path, series: int | None = None) -> Opened:
    """Open a scene of a microscope's file; the first, with a remark, if none is asked for.

    Raises
    ------
    InputError
        The package that reads it is not installed, or there is no such scene.
    """
    package = import_package(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers' own dependencies
        return _read_oif(path, series) if package == "oiffile" else _read_bioio(path, series)


def _read_bioio(path: Path, series: int | None) -> Opened:
    module = importlib.import_module(_PACKAGES[path.suffix.lower()])
    if path.suffix.lower() == ".czi":
        check_czi(path)
    try:
        image = module.Reader(str(path.absolute()))
        scenes = [str(name) for name in image.scenes]
        number, remarks = _choose_scene(path, scenes, series)
        image.set_scene(number)
        data, axes = image.dask_data, str(image.dims.order)
        size = image.physical_pixel_sizes
        names = tuple(map(str, image.channel_names or ()))
    except InputError:
        raise
    except Exception as error:  # the readers share no base class of errors
        raise ValueError(first_line(error)) from error
    piece = math.prod(max(sizes) for sizes in data.chunks) * data.dtype.itemsize
    check_claim(path, piece, path.stat().st_size)
    # bioio gives every image all of T, C and Z; letters that are none of ours are views and such.
    kept = [letter in "YXS" or count > 1 for letter, count in zip(axes, data.shape, strict=True)]
    data = data[tuple(slice(None) if keep else 0 for keep in kept)]
    axes = "".join(itertools.compress(axes, kept))
    known = [None if n is None or not 0 < n < math.inf else float(n) for n in (size.Y, size.X)]
    z = size.Z if size.Z is not None and 0 < size.Z < math.inf else 1.0
    y, x = known
    size_um = None if y is None or x is None else (float(z), y, x)
    series = number if len(scenes) > 1 else None
    return Opened(data, axes, size_um, None, remarks, series, channel_names=names)


def _choose_scene(path: Path, scenes: list[str], wanted: int | None) -> tuple[int, tuple[str, ...]]:
    if not scenes:
        raise InputError(f"{path} holds no image.")
    names = ", ".join(scenes[:6]) + ", ..." * (len(scenes) > 6)
    if wanted is None:
        if len(scenes) == 1:
            return 0, ()
        return 0, (
            f"{path.name} holds {len(scenes)} images ({names}); number 0, the first, is read. "
            f"Choose another with --series (0 to {len(scenes) - 1}).",
        )
    if not 0 <= wanted < len(scenes):
        choice = f"0 to {len(scenes) - 1}" if len(scenes) > 1 else "only 0"
        raise InputError(f"{path} has no series {wanted}; choose {choice} ({names}).")
    return wanted, ()


class OifPlanes(LazyArray):
    """The planes of an Olympus file, each a TIFF inside it that is decoded when it is read.

    Parameters
    ----------
    path
        Of the .oif or .oib file.
    names
        Name of the TIFF at each position along the leading axes.
    leading, plane
        Shapes of the leading axes, and of one plane.
    dtype
        Of the values.
    """

    def __init__(
        self,
        path: Path,
        names: dict[tuple[int, ...], str],
        leading: tuple[int, ...],
        plane: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(leading + plane, dtype)
        self.path, self.names, self.leading, self.plane = path, names, leading, plane

    def __getitem__(self, key: Any) -> np.ndarray:
        from oiffile import OifFile

        spans, drop = ranges_from_index(key, self.shape)
        out = np.zeros([len(span) for span in spans], self.dtype)
        count = len(self.leading)
        window = tuple(
            slice(s.start, None if s.stop < 0 else s.stop, s.step) for s in spans[count:]
        )
        with OifFile(str(self.path)) as file:
            for steps in itertools.product(*(enumerate(span) for span in spans[:count])):
                name = self.names.get(tuple(p for _, p in steps))
                if name is not None and out.size:
                    out[tuple(n for n, _ in steps)] = file.asarray(name)[window]
        result: np.ndarray = out[drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.names, self.leading, self.plane, self.dtype)


def _read_oif(path: Path, series: int | None) -> Opened:
    from oiffile import OifFile

    with OifFile(str(path)) as file:
        names = [f"image {number}" for number in range(len(file.series))]
        number, _ = _choose_scene(path, names, series or 0)
        sequence = file.series[number]
        first = file.asarray(sequence[0])
        leading = tuple(int(n) for n in sequence.shape)
        planes = {
            tuple(int(n) for n in index): str(name)
            for index, name in zip(sequence.indices, sequence, strict=True)
        }
        size_um = _oif_voxel_size(file.mainfile)
        axes = str(sequence.axes) + "YXS"[: first.ndim]
        channels = leading[axes.index("C")] if "C" in axes else 1
        names = [_oif_channel(file.mainfile, number) for number in range(1, channels + 1)]
    data = OifPlanes(path.absolute(), planes, leading, first.shape, first.dtype)
    return Opened(data, axes, size_um, channel_names=tuple(names) if any(names) else ())


def _oif_channel(settings: Any, number: int) -> str:
    """Return the name of a channel's dye."""
    return str(settings.get(f"Channel {number} Parameters", {}).get("DyeName", "")).strip('"')


def _oif_voxel_size(settings: Any) -> tuple[float, float, float] | None:
    reference = settings.get("Reference Image Parameter", {})
    sizes = []
    for letter in ("Height", "Width"):
        value = float(reference.get(f"{letter}ConvertValue", math.nan))
        factor = to_um(str(reference.get(f"{letter}Unit", "um")).strip('"'))
        sizes.append(value * factor if factor is not None else math.nan)
    if not all(0 < size < math.inf for size in sizes):
        return None
    z = 1.0
    for number in range(8):
        axis = settings.get(f"Axis {number} Parameters Common", {})
        if str(axis.get("AxisCode", "")).strip('"') == "Z":
            step = abs(float(axis.get("Interval", 0)))
            factor = to_um(str(axis.get("UnitName", "um")).strip('"'))
            z = step * factor if step and factor is not None else 1.0
    return z, sizes[0], sizes[1]
