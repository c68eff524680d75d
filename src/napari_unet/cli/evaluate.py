"""`napari-unet evaluate`: labels are scored against the truth."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as
from napari_unet.cli.terminal import UNUSABLE, follow, format_table, run_all, say
from napari_unet.core.io.axes import FRAMES
from napari_unet.core.io.files import expand_path

if TYPE_CHECKING:
    from argparse import Namespace

    from tqdm import tqdm


def add_evaluate(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(commands, "evaluate", _evaluate, "Score labels against the truth")
    command.add_argument("predicted", type=expand_path, help="labels, or a folder of labels")
    command.add_argument(
        "truth", type=expand_path, help="the true labels, or a folder with equal names"
    )
    command.add_argument(
        "--csv", type=expand_path, metavar="FILE", help="write all scores to a table"
    )
    command.add_argument(
        "--overlay",
        type=expand_path,
        metavar="DIR",
        help="draw hits (green), false (red) and missed objects (blue) into a PNG for each image, "
        "of the plane with the most objects; for one image, the name of the PNG will do",
    )
    command.add_argument(
        "--images",
        type=expand_path,
        metavar="PATH",
        help="what to draw on: an image, or a folder with equal names. Not given: on black",
    )
    command.add_argument(
        "--frames",
        choices=FRAMES,
        default=FRAMES[0],
        help="match the objects of a stack plane by plane or in its volumes; time points are "
        "apart always (default: auto, planes for what a 2D model found, else volumes)",
    )
    command.add_argument(
        "--axes", metavar="A", help="a letter for each axis of the labels. Not given: the files'"
    )
    command.add_argument(
        "--truth-axes", metavar="A", help="the same for the truth. Not given: as for the labels"
    )
    command.add_argument(
        "--predicted",
        dest="select",
        metavar="PATTERN",
        help="which files in the folder are scored, such as '*_pred.tif'. Not given: all",
    )
    command.add_argument(
        "--labels",
        dest="pattern",
        metavar="PATTERN",
        help="how the truth is called, such as '{stem}_masks.tif'. Not given: like the labels, "
        "perhaps with an ending such as _masks",
    )
    add_labels_as(command)
    add_labels_as(command, "--truth-as", "the same for the truth. Not given: as for the labels")


def _evaluate(values: Namespace) -> int:
    from napari_unet.core.evaluation.comparison import LabelPair, pair_files, read_pair, score_steps
    from napari_unet.core.evaluation.metrics import SCORE_HEADINGS, Scores, score_row, write_scores
    from napari_unet.core.evaluation.picture_files import draw_picture, plan_pictures
    from napari_unet.core.io.files import check_text_file
    from napari_unet.core.labels.label_file import LabelReading

    if values.csv:
        check_text_file(values.csv)
    how = LabelReading(values.labels_as, values.axes)
    truth_how = LabelReading(values.truth_as or values.labels_as, values.truth_axes or values.axes)
    pairs = pair_files(values.predicted, values.truth, values.pattern, values.select)
    scores: dict[str, Scores] = {}
    pictures = plan_pictures(pairs, values.overlay, values.images)

    def run(pair: LabelPair, bar: tqdm[Any]) -> None:
        bar.set_description(pair.name, refresh=False)
        comparison = read_pair(pair, values.frames, how, truth_how)
        for remark in comparison.remarks:
            say(f"warning: {remark}")
        scores[pair.name] = follow(score_steps(comparison), bar)
        if picture := pictures.get(pair.name):
            bar.write(draw_picture(picture, comparison), file=sys.stdout)

    failed = run_all(pairs, run, keep_going=len(pairs) > 1)
    if len(scores) > 1:
        scores[f"pooled ({len(scores)} images)"] = Scores.pooled(scores.values())
    if scores:
        print(format_table(SCORE_HEADINGS, [score_row(*named) for named in scores.items()]))
    if values.csv and scores:
        write_scores(values.csv, scores)
    return UNUSABLE if failed else 0
