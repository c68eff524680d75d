"""The features of the image worked on last: what Segment computed, a click need not wait for."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from napari_unet.core.settings.tasks import ClickSettings

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.model import Model


class KeptFeatures:
    """The features of one image, forgotten when the image changes or another model comes.

    What is forgotten stays with whoever is still at work with it.
    """

    def __init__(self) -> None:
        self._megabytes: float = ClickSettings.cache
        self._cache: FeatureCache | None = None
        self._model: weakref.ref[Model] | None = None
        self._guard = threading.Lock()

    def open(self, model: Model) -> FeatureCache:
        """Return the cache for a model; in a job's thread, for it imports torch."""
        from napari_unet.nn.inference.embeddings import FeatureCache

        with self._guard:
            if self._cache is None or self._model is None or self._model() is not model:
                self._cache, self._model = FeatureCache(self._megabytes), weakref.ref(model)
            return self._cache

    def resize(self, megabytes: float) -> None:
        """Keep so much from now on."""
        with self._guard:
            self._megabytes = megabytes
            if self._cache is not None:
                self._cache.resize(megabytes)

    def forget(self, *_: Any) -> None:
        """Begin anew."""
        with self._guard:
            self._cache = None


_kept: weakref.WeakKeyDictionary[Image, KeptFeatures] = weakref.WeakKeyDictionary()


def features_of(image: Image) -> KeptFeatures:
    """Return the features of an image layer; those of other images are forgotten."""
    for other, kept in list(_kept.items()):
        if other is not image:
            kept.forget()
    if image not in _kept:
        _kept[image] = KeptFeatures()
        image.events.data.connect(_kept[image].forget)
    return _kept[image]
