"""The plan of a run in blocks: that of an unfinished run, or a new one, settled once for all."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_unet.core.blockwise.blocks import BlockPlan, choose_block, choose_planes_per_batch
from napari_unet.core.blockwise.run_directory import RunDirectory, clear, write_text
from napari_unet.core.blockwise.run_plan import RunPlan
from napari_unet.core.errors import OutputError
from napari_unet.core.image.domain_shift import ImageSurvey
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.provenance import fingerprint, make_provenance
from napari_unet.core.io.retry import UnreadableError, with_retries
from napari_unet.core.volumes.modes import JOINED, frame_ndim, object_axes
from napari_unet.nn.inference.decode import decode_settings
from napari_unet.nn.inference.diameter_estimation import ESTIMATING
from napari_unet.nn.inference.model import choose_scale, write_exactly
from napari_unet.nn.inference.segment import resolve_settings

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.progress import Progress
    from napari_unet.core.settings import PredictSettings
    from napari_unet.nn.blockwise.block import BlockRun
    from napari_unet.nn.blockwise.executor import Pool
    from napari_unet.nn.blockwise.run import BlockwiseRequest
    from napari_unet.nn.inference.model import Model


class OtherRunError(OutputError):
    """An unfinished run is not of what is asked for now."""


def resolve_plan(
    request: BlockwiseRequest, run: BlockRun, pool: Pool
) -> Generator[Progress, None, list[str]]:
    """Read the plan of an unfinished run, or make one; return the remarks."""
    place, stack, model = run.place, run.stack, run.model
    if (place.folder / "plan.json").exists():
        if request.resume:
            _go_on(place, _asked(request, run, place.plan.ndim))
            return list(place.plan.provenance.get("remarks", []))
        if not request.overwrite:
            raise OutputError(
                f"{place.folder} holds an unfinished run; go on with it (--resume), or begin "
                "anew (--overwrite)."
            )
    place.empty()
    whole = with_retries(stack, lenient=True)
    settled, way, least, found = yield from resolve_settings(whole, model, request.settings)
    asked = _asked(request, run, frame_ndim(way))
    if found:
        yield ImageSurvey(0, 0, ESTIMATING, found)
    remarks = [remark.text for remark in found]
    write_exactly(model, place.folder / "model")
    decode = decode_settings(model, settled) if model.spec.head == "instance" else None
    size = stack.frame_shape(frame_ndim(way))
    block = choose_block(size, request.block)
    plan = RunPlan(
        **{**asked, "block": block},
        run=uuid.uuid4().hex,
        settled=asdict(settled),
        decode=asdict(decode) if decode else None,
        precision=pool.precision(request.settings.precision),
        provenance=_provenance(run, request.settings, settled, way)
        | {"data_hash": asked["identity"]["data"], "remarks": remarks},
        least_voxels=least if way == JOINED else None,
        together=choose_planes_per_batch(stack.labels_shape[: -len(size)], BlockPlan(size, block)),
    )
    write_text(place.folder / "plan.json", plan.to_json())
    return remarks


def _asked(request: BlockwiseRequest, run: BlockRun, ndim: int) -> dict[str, Any]:
    """Return what a plan has to agree with to be gone on with, by its attributes.

    That its frames have `ndim` axes follows from what the settings say and the data are.
    """
    stack, wanted = run.stack, request.block
    return {
        "axes": stack.labels_axes,
        "shape": stack.labels_shape,
        "ndim": ndim,
        "block": None if wanted is None else choose_block(stack.frame_shape(ndim), wanted),
        "settings": asdict(request.settings),
        "identity": {
            "weights": _digest(run.model),
            "data": _fingerprint(stack),
            "zarr_format": request.target.zarr_format,
        },
    }


def _provenance(
    run: BlockRun, asked: PredictSettings, settled: PredictSettings, way: str
) -> dict[str, Any]:
    """Return what can be said beforehand of how the result is made."""
    return make_provenance(with_retries(run.stack), run.model.card, asked, hashed=False) | {
        "diameter_px": settled.diameter,
        "scale": choose_scale(run.model, settled),
        "volumes": way,
        OBJECT_AXES: object_axes(way),
    }


def _go_on(place: RunDirectory, asked: dict[str, Any]) -> None:
    """Check that an unfinished run is the one that is asked for; forget what had failed in it."""
    if different := place.plan.differs(**asked):
        raise OtherRunError(
            f"{place.folder} holds an unfinished run of another kind ({different}); give the same "
            "image, model and settings, or begin anew (--overwrite)."
        )
    if (place.folder / "failed").exists():
        plan = place.plan
        for frame in range(plan.frames):
            for number in place.done("failed", frame):
                place.block(plan.groups.of(frame), number).unlink(missing_ok=True)
        for name in ("join", "stacked", "written", "result", "failed"):
            clear(place.folder / name)


def _digest(model: Model) -> str:
    """Return a hash of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(stack: Stack) -> str | None:
    """Return a hash of the data; None if a part that it is of cannot be read."""
    try:
        return fingerprint(with_retries(stack))
    except UnreadableError:
        return None
