"""What the window requests of the network, and the one place where it loads models.

The functions that import torch run in a job's thread: in the window's own thread that would take
seconds, in which the window does not answer.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import ClickSettings, PredictSettings
from napari_unet.gui.layers.navigation import WHOLE

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.model import Model

Engine = Callable[..., Generator[Any, None, Any]]


@dataclass(frozen=True)
class Request:
    """What the Segment panel's form requests.

    Attributes
    ----------
    model, ndim
        Name of the model, and whether it segments planes (2) or volumes (3).
    region
        One of `napari_unet.gui.layers.navigation.REGIONS`.
    save_in
        Path of the OME-Zarr that the labels are written into block by block; "" for none.
    scheduler
        Address of the dask cluster that does it; "" for none.
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
    """Load the model and segment a stack, in a job's thread.

    If the model has a click head, the features that it computes are kept in `features`.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.nn.inference.segment import segment_steps

    model = loaded_model(request.model, request.device)
    if features is not None and model.click is not None:
        arguments["features"] = features.open(model)
    result = yield from segment_steps(stack, model, request.settings, preview=True, **arguments)
    return result


def load_libraries(steps: Sequence[str]) -> Generator[Progress, None, None]:
    """Import what will be needed, in a job's thread, before anybody waits for it.

    pandas is what napari would import with its first Labels layer, in the window's own thread.

    Parameters
    ----------
    steps
        The modules of the panel's steps.
    """
    for name in ("pandas", *steps, "napari_unet.nn.inference.segment"):
        yield Progress(0, 0, f"loading {name}")
        importlib.import_module(name)


_last_model: list[Any] = []


def loaded_model(name: str, device: str) -> Any:
    """Load a model of the store, or return the last one if its folder is unchanged since."""
    from napari_unet.core.models.store import find_model
    from napari_unet.nn.inference.model import load_model

    card = find_model(name) / "model.json"
    key = (str(card), card.stat().st_mtime_ns, device)
    if not _last_model or _last_model[0] != key:
        _last_model[:] = [key, load_model(name, device)]
    return _last_model[1]


def forget_model() -> None:
    """Load the model anew when it is needed next."""
    _last_model.clear()


class KeptFeatures:
    """The features of one image that Segment has computed, so that a click need not.

    They are dropped when the image changes or another model comes; a job that uses them keeps its
    own reference.
    """

    def __init__(self) -> None:
        self._megabytes: float = ClickSettings.cache
        self._cache: FeatureCache | None = None
        self._model: weakref.ref[Model] | None = None
        self._lock = threading.Lock()

    def open(self, model: Model) -> FeatureCache:
        """Return the cache for a model; to be called in a job's thread, as it imports torch."""
        from napari_unet.nn.inference.embeddings import FeatureCache

        with self._lock:
            if self._cache is None or self._model is None or self._model() is not model:
                self._cache, self._model = FeatureCache(self._megabytes), weakref.ref(model)
            return self._cache

    def resize(self, megabytes: float) -> None:
        """Set how much is kept from now on."""
        with self._lock:
            self._megabytes = megabytes
            if self._cache is not None:
                self._cache.resize(megabytes)

    def forget(self, *_: Any) -> None:
        """Drop all features."""
        with self._lock:
            self._cache = None


_kept: weakref.WeakKeyDictionary[Image, KeptFeatures] = weakref.WeakKeyDictionary()


def get_features(image: Image) -> KeptFeatures:
    """Return the features of an image layer; those of other images are dropped."""
    for other, kept in list(_kept.items()):
        if other is not image:
            kept.forget()
    if image not in _kept:
        _kept[image] = KeptFeatures()
        image.events.data.connect(_kept[image].forget)
    return _kept[image]
