"""`napari-unet segment`: the objects in an image, or in each of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import (
    add_command,
    add_model_options,
    add_settings,
    load_model,
    settings_from,
)
from napari_unet.cli.terminal import UNUSABLE, follow, run_all, say
from napari_unet.core.errors import ConnectionLostError, OutputError, SettingsError
from napari_unet.core.io.files import expand_path
from napari_unet.core.settings.tasks import LinkSettings, PredictSettings
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from argparse import Namespace

    from tqdm import tqdm

    from napari_unet.batch.file_job import FileJob


def add_segment(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "segment", _segment, "Find the objects in an image or a folder of them"
    )
    command.add_argument(
        "input",
        type=_source,
        help="image (TIFF, PNG, Zarr and more), array in a file (FILE.h5:/PATH), address of a Zarr "
        "(http, https, s3), or a folder",
    )
    command.add_argument(
        "output",
        type=expand_path,
        nargs="?",
        help="labels (.tif, .png, .zarr), or a folder. Not given: into the OME-Zarr of the input",
    )
    add_model_options(command)
    command.add_argument(
        "--axes", metavar="A", help="a letter for each axis, such as TZCYX. Not given: the file's"
    )
    command.add_argument(
        "--series",
        type=int,
        metavar="N",
        help="which image of files that hold several, counted from 0. Not given: the largest in a "
        "TIFF, else the first",
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing results")
    command.add_argument(
        "--link",
        action="store_true",
        help="follow objects through time: labels are numbered by track, and OUTPUT.tracks.csv is "
        "written beside them",
    )
    command.add_argument(
        "--also",
        metavar="KINDS",
        help="write the labels for other programs, too, beside the output: rois (ImageJ), geojson "
        "(QuPath), coco, cellpose; several with commas",
    )
    add_settings(command, LinkSettings, "following objects through time (--link)")
    large = command.add_argument_group("large data (labels that become a .zarr)")
    large.add_argument(
        "--resume",
        action="store_true",
        help="go on with an unfinished run; of a folder, images that have labels are left out",
    )
    large.add_argument(
        "--scheduler", metavar="ADDRESS", help="work on a dask cluster, such as tcp://host:8786"
    )
    large.add_argument(
        "--level", type=int, default=0, metavar="N", help="level of a multiscale image (default: 0)"
    )
    large.add_argument(
        "--block",
        type=int,
        metavar="PX",
        help="edge length of a block. Not given: 4096, volumes 512",
    )
    add_settings(command, PredictSettings)


def _source(text: str) -> Path | str:
    from napari_unet.core.io.ome_zarr import is_address

    return text if is_address(text) else expand_path(text)


def _segment(values: Namespace) -> int:
    from napari_unet.batch.file_job import (
        BlockOptions,
        is_batch,
        plan_jobs,
        runs_in_blocks,
        segment_file,
        without_parts,
    )
    from napari_unet.core.io.files import list_images, make_folder

    if values.scheduler is not None and values.device != "auto":
        raise SettingsError(
            f"--device is {values.device!r}, and the workers of a cluster take what they have; "
            "leave it out with --scheduler."
        )
    settings = settings_from(values, PredictSettings)
    linking = settings_from(values, LinkSettings)
    link = linking if values.link else None
    jobs = plan_jobs(values.input, values.output, values.series)
    many = is_batch(values.input)
    listed = list_images(values.input) if many else []
    parts = without_parts(listed)[1] if len(jobs) < len(listed) else {}
    blocks = BlockOptions(values.block, values.resume, values.scheduler, values.level)
    for job in jobs:  # errors that can be known are raised before torch is loaded
        options = blocks.for_job(job, linked=values.link) if many else blocks
        runs_in_blocks(job.target, options, linked=values.link)
    done: list[FileJob] = []
    if many:
        make_folder(values.output)
        if blocks.resume:  # each result is whole, so what is there is done
            found, jobs = jobs, []
            for job in found:
                (done if job.is_done(linked=values.link) else jobs).append(job)
            _remark_on_done(done, values.model, settings)
    else:
        jobs[0].open(values.axes, values.level)
    also = _also(values, jobs)
    model, empty = load_model(values), list[int]()

    def run(job: FileJob, bar: tqdm[Any]) -> None:
        bar.set_description(Path(job.source).name, refresh=False)
        options = blocks.for_job(job, linked=values.link) if many else blocks
        # Tracks are written before their labels: without these they are those of a killed run.
        alone = values.resume and values.link and job.target is not None and not job.target.exists()
        overwrite = values.overwrite or alone
        steps = segment_file(job, model, settings, values.axes, overwrite, link, options)
        try:
            provenance = follow(steps, bar)
        except (KeyboardInterrupt, OutputError, ConnectionLostError) as end:
            ours = not isinstance(end, OutputError) or isinstance(end.__cause__, OSError)
            in_blocks = runs_in_blocks(job.target, options, linked=values.link)
            if ours and in_blocks and job.output_location(model.name).is_unfinished:
                say("finished blocks are kept; --resume goes on with the rest.")
            raise
        if lost := len(provenance.get("failed_blocks", ())):
            empty.append(lost)
            if many:
                say(f"{job.source} has {pluralise(lost, 'block')} that could not be read.")
        for kind in also:
            _export(job, kind, overwrite=values.overwrite)
        bar.write(_run_line(job.target or f"labels of {job.source}", provenance), file=sys.stdout)

    failed = run_all(jobs, run, keep_going=many)
    lacking = _export_missing(done, also)
    if empty:
        lost = pluralise(sum(empty), "block")
        say(f"{lost} could not be read and left empty; --resume tries again.")
        failed += len(empty)
    if many:
        for part, first in parts.items():
            say(f"{part.name} is a part of the image {first.name}.")
        print(_folder_line(values.input, len(jobs) - failed, len(jobs), len(done)))
    return UNUSABLE if failed or lacking else 0


def _remark_on_done(jobs: list[FileJob], model: str, settings: PredictSettings) -> None:
    """Say how many results, which are left as they are, were made otherwise."""
    from napari_unet.core.io.provenance import differing_settings, find_provenance
    from napari_unet.core.models.folder import read_card
    from napari_unet.core.models.store import find_model

    if not jobs:
        return
    model_hash, others = read_card(find_model(model)).hash, dict[Path | None, list[str]]()
    for job in jobs:
        found = list(differing_settings(find_provenance(job.target), model_hash, settings))
        others |= {job.target: found} if found else {}
    if others:
        target, found = next(iter(others.items()))
        say(
            f"warning: {len(others)} of {pluralise(len(jobs), 'result')} were made otherwise and "
            f"are left as they are, such as {target} ({'; '.join(found)}); to replace them, give "
            "--overwrite without --resume."
        )


def _export_missing(jobs: list[FileJob], kinds: list[str]) -> int:
    """Write what results of an earlier run lack beside them; return how many failed."""
    from napari_unet.core.labels.label_export import path_beside

    def lacks(job: FileJob) -> list[str]:
        target = job.target
        return [k for k in kinds if target is not None and not path_beside(target, k).exists()]

    def export(job: FileJob, bar: tqdm[Any]) -> None:
        for kind in lacks(job):
            _export(job, kind, overwrite=False)

    wanting = [job for job in jobs if lacks(job)]
    return run_all(wanting, export, keep_going=True) if wanting else 0


def _folder_line(folder: Path, done: int, count: int, before: int) -> str:
    """Return a line on the run of a folder: images that were segmented, files that are none."""
    from napari_unet.core.io.files import other_files

    line = f"{done} of {count} images segmented"
    if before:
        line = f"{line if count else 'no image is left to segment'}; {before} had labels before"
    if others := other_files(folder):
        kinds = ", ".join(sorted({path.suffix or path.name for path in others}))
        line += f"; {pluralise(len(others), 'other file')} left out ({kinds})"
    return line


def _also(values: Namespace, jobs: list[FileJob]) -> list[str]:
    """Return the kinds of files to write beside each result.

    Raises
    ------
    UnetError
        An unknown kind, one that cannot hold the labels, or a file that exists already.
    """
    from napari_unet.core.labels.label_export import BESIDE, check_export, path_beside

    kinds = [kind.strip() for kind in (values.also or "").split(",") if kind.strip()]
    if unknown := [kind for kind in kinds if kind not in BESIDE]:
        raise OutputError(f"--also is {unknown[0]!r}; choose from: {', '.join(BESIDE)}.")
    for job in jobs if kinds else ():
        if job.target is None:
            raise OutputError("--also writes beside the output; give one.")
        axes = "YX" if len(jobs) > 1 else job.open(values.axes, values.level).labels_axes
        for kind in kinds:
            beside = path_beside(job.target, kind)
            check_export(kind, axes, beside, overwrite=values.overwrite)
    return kinds


def _export(job: FileJob, kind: str, *, overwrite: bool) -> None:
    """Write the labels of a job, which are done, for another program."""
    from napari_unet.core.io.stack import open_stack
    from napari_unet.core.labels.label_export import export_labels, path_beside

    target = job.target
    if target is not None:
        image = Path(job.source) if isinstance(job.source, Path) else None
        beside = path_beside(target, kind)
        export_labels(open_stack(target), beside, kind, image=image, overwrite=overwrite)


def _run_line(target: object, provenance: dict[str, Any]) -> str:
    """Return a line on the result of a run: objects, speed, and whether the tiles fit together."""
    seam = provenance["seam"]
    tracks = f" in {pluralise(provenance['tracks'], 'track')}" if "tracks" in provenance else ""
    seams = "not checked" if seam is None else f"largest |difference| {seam:.1e}"
    return (
        f"{target}: {pluralise(provenance['objects'], 'object')}{tracks}, "
        f"{provenance['seconds']:.2f} s, "
        f"{provenance['mpx_per_s']:.2f} MPx/s on {provenance['device']} "
        f"({provenance['precision']}), seams: {seams}"
    )
