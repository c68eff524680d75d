"""Print the table of docs/formats.md, made by opening a small file of each format.

    python scripts/formats_table.py > table.md

Formats whose package is not installed are left out: `pip install -e ".[formats]"` brings them all.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from format_samples import FORMATS, Format  # noqa: E402
from sample_file import SIZE_UM  # noqa: E402

from napari_unet.core.io.label_reader import read_labels  # noqa: E402
from napari_unet.core.io.label_writer import create_output  # noqa: E402
from napari_unet.core.io.stack import open_stack  # noqa: E402

HEADINGS = ("Format", "Files", "Read lazily", "Voxel size", "Channel names", "Several images",
            "Written", "Needs")  # fmt: skip


def is_readable(kind: Format) -> bool:
    """Return whether the package that reads a format is installed."""
    return not kind.package or importlib.util.find_spec(kind.package) is not None


def table_row(kind: Format, folder: Path) -> str:
    """Write a sample of a format, open it, and return its line of the table.

    Raises
    ------
    ValueError
        What is read is not what was written.
    """
    sample = kind.write(folder)
    stack = open_stack(sample.path)
    if stack.axes.replace("C", "S" if "S" in sample.axes else "C") != sample.axes:
        raise ValueError(f"{kind.name} has the axes {stack.axes}, not {sample.axes}")
    if not np.array_equal(np.asarray(stack.data[...]), sample.values):
        raise ValueError(f"{kind.name} has other values than were written")
    for number, values in enumerate(sample.others, 1):
        other = open_stack(sample.path, series=number)
        if not np.array_equal(np.asarray(other.data[...]), values):
            raise ValueError(f"image {number} of {kind.name} has other values than were written")
    if sample.others and not stack.remarks:
        raise ValueError(f"{kind.name} does not say that there are several images")
    size = "no"
    if stack.voxel_size_um is not None:
        found = dict(zip("ZYX", np.round(stack.voxel_size_um, 4).tolist(), strict=True))
        if found["X"] != SIZE_UM["X"]:
            raise ValueError(f"{kind.name} has the voxel size {found}, not {SIZE_UM}")
        size = "z, y, x" if "Z" in stack.axes and found["Z"] == SIZE_UM["Z"] else "y, x"
    if stack.channel_names != sample.channel_names:
        raise ValueError(f"{kind.name} names the channels {stack.channel_names}")
    if kind.output:
        labels = np.arange(20, dtype=np.uint16).reshape(4, 5)
        with create_output(folder / f"labels{kind.output}", (4, 5), "YX", np.uint16) as output:
            output.array[...] = labels
        if not np.array_equal(read_labels(folder / f"labels{kind.output}"), labels):
            raise ValueError(f"{kind.name} has other labels than were written")
    cells = [
        kind.name,
        " ".join(part if "`" in part else f"`{part}`" for part in kind.suffixes.split()),
        "no" if isinstance(stack.data, np.ndarray) else "yes",
        size,
        "yes" if sample.channel_names else "no",
        "yes" if sample.others else "no",
        "labels" if kind.output else "no",
        "extra `formats`" if kind.package else "",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for kind in filter(is_readable, FORMATS):
        with tempfile.TemporaryDirectory() as folder:
            print(table_row(kind, Path(folder)))


if __name__ == "__main__":
    main()
