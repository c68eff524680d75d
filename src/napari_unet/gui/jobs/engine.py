"""What the window asks of the engine, and the one place where it meets torch."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.layers.navigation import WHOLE

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.jobs.embeddings import KeptFeatures

Engine = Callable[..., Generator[Any, None, Any]]


@dataclass(frozen=True)
class Request:
    """What the form asks for.

    `save_in` is where a whole stack's labels are written block by block, `scheduler` the address of
    the dask cluster that does it; empty for neither.
    """

    model: str
    ndim: int
    device: str = "auto"
    region: str = WHOLE
    settings: PredictSettings = field(default_factory=PredictSettings)
    save_in: str = ""
    scheduler: str = ""


def engine_steps(
    stack: Stack, request: Request, features: KeptFeatures | None = None, **arguments: Any
) -> Generator[Progress, None, Any]:
    """Load the model and run it; runs in a job's thread, where importing torch does no harm.

    If the model answers clicks, the features that it computes are kept for them.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.nn.inference.segment import segment_steps

    model = loaded_model(request.model, request.device)
    if features is not None and model.click is not None:
        arguments["features"] = features.open(model)
    result = yield from segment_steps(stack, model, request.settings, preview=True, **arguments)
    return result


_last_model: list[Any] = []


def loaded_model(name: str, device: str) -> Any:
    """Load a model, or take the one of the last run if its folder is unchanged since."""
    from napari_unet.core.models.store import find_model
    from napari_unet.nn.inference.model import load_model

    card = find_model(name) / "model.json"
    key = (str(card), card.stat().st_mtime_ns, device)
    if not _last_model or _last_model[0] != key:
        _last_model[:] = [key, load_model(name, device)]
    return _last_model[1]
