"""`napari-unet replay`: a result made again, or how it was made in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import DEVICE_HELP, add_command
from napari_unet.cli.terminal import follow, progress_bar, say
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import expand_path

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

DIFFERS = 1
"""Exit status if the replay is not the result."""


def add_replay(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "replay", _replay, "Make a result again and say whether it is the same"
    )
    command.add_argument(
        "result", type=expand_path, help="labels or a table that napari-unet wrote"
    )
    command.add_argument(
        "image",
        nargs="?",
        help="the image, or its address; of a table the folder of labels and images. Not given: "
        "the file of its name beside the result",
    )
    command.add_argument(
        "--axes", metavar="A", help="a letter for each axis of the image. Not given: as recorded"
    )
    command.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    command.add_argument(
        "--explain",
        action="store_true",
        help="only say how it was made, with a paragraph for the methods of a paper",
    )
    command.add_argument(
        "--out", type=expand_path, metavar="FILE", help="write the new labels to a file"
    )


def _replay(values: Namespace) -> int:
    from napari_unet.batch.replay import IDENTICAL, RENAMED, check_image, plan_replay, replay_steps
    from napari_unet.batch.replay_table import is_table

    if is_table(values.result):
        return _replay_table(values)
    from napari_unet.core.io.label_writer import check_output

    image = check_image(values.image)
    if values.explain:
        return _explain(values, image)
    plan = plan_replay(values.result, image, values.axes)
    if values.out:
        _check_out(values.out)
        check_output(values.out, plan.stack.labels_shape)
    from napari_unet.nn.inference.model import load_model

    model = load_model(plan.entry.path, values.device)
    with progress_bar(1) as bar:
        found = follow(replay_steps(plan, model), bar)
    print(f"{values.result}: {found.line()}")
    for reason in found.reasons:
        print(f"- {reason}")
    if plan.strokes:
        print(f"- {plan.strokes} corrections were recorded since on labels of this image and model")
    if values.out:
        _write(values.out, plan, found.labels)
    return 0 if found.verdict in (IDENTICAL, RENAMED) else DIFFERS


def _replay_table(values: Namespace) -> int:
    """Measure a table again, or say of what it was measured."""
    from napari_unet.batch.replay_table import replay_table_steps
    from napari_unet.core.io.files import check_text_file, write_text
    from napari_unet.core.io.methods_text import explain
    from napari_unet.core.io.provenance import read_provenance

    if values.explain:
        for entry in read_provenance(values.result).get("files", []):
            print(f"Measured from {entry['labels']}, image {entry['image'] or 'none'}.")
            print(*(f"  {line}" for line in explain(entry.get("made") or {})), sep="\n")
        return 0
    if values.out:
        _check_out(values.out)
        check_text_file(values.out)
    given = expand_path(values.image) if values.image else None
    with progress_bar(1) as bar:
        found = follow(replay_table_steps(values.result, given), bar)
    print(f"{values.result}: {found.line()}")
    for reason in found.reasons:
        print(f"- {reason}")
    if values.out:
        write_text(values.out, found.text)
    return 0 if found.identical else DIFFERS


def _check_out(path: Path) -> None:
    """Refuse a file that is there: it may be the result itself."""
    if path.exists():
        raise OutputError(f"{path} exists already; choose another name (--out).")


def _write(path: Path, plan: Any, labels: Any) -> None:
    import numpy as np

    from napari_unet.core.io.label_writer import create_output

    stack = plan.stack
    place = (path, stack.labels_shape, stack.labels_axes, np.uint32, stack.voxel_size_um)
    with create_output(*place, overwrite=False, transform=stack.labels_transform) as output:
        output.array[...] = labels
        output.finish(np.uint16 if labels.max(initial=0) < 2**16 else np.uint32, plan.provenance)


def _explain(values: Namespace, image: Path | str | None) -> int:
    """Say how a result was made; corrections are counted where its image is found."""
    from napari_unet.batch.replay import plan_replay
    from napari_unet.core.errors import UnetError
    from napari_unet.core.io.methods_text import explain, methods_paragraph
    from napari_unet.core.io.provenance import read_provenance

    provenance, strokes = read_provenance(values.result), 0
    try:
        plan = plan_replay(values.result, image, values.axes)
    except UnetError as error:
        say(f"it cannot be made again here: {error}")
    else:
        strokes = plan.strokes
        for reason in plan.reasons:
            say(f"not as it was: {reason}")
    print(*explain(provenance), sep="\n")
    if strokes:
        print(f"{strokes} corrections were recorded since on labels of this image and model.")
    print(f"\n{methods_paragraph(provenance, strokes)}")
    return 0
