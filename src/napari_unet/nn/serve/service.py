"""From a request to its answer: a tile's pixels through the network, and on to what was asked for.

What comes from a user is data: a card, weights in safetensors, pixels, integers. No name of a file
is among them, and every integer is held against what it may be before it is used.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet import __version__
from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.image.frames import Frame
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.io.stack import Stack
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import CARD, WEIGHTS
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.tiles import Tile
from napari_unet.core.volumes.volume_mode import LoadedPart
from napari_unet.nn.inference.decode import InstanceDecoder, SemanticDecoder, decodes_on
from napari_unet.nn.inference.embeddings import LARGEST
from napari_unet.nn.inference.model import Model, has_fast_bfloat16, load_model, pick_device
from napari_unet.nn.inference.remote import BASINS, CLASSES, FEATURES, MAPS
from napari_unet.nn.inference.runner import DTYPES, FLIPS, OFF, TURNS
from napari_unet.nn.inference.tile_runner import TileRunner
from napari_unet.nn.remote.connection import model_key
from napari_unet.nn.remote.message import BODY_LIMIT, MODEL_LIMIT, Message, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.tiles import Window

LOADED = 3
"""Models that are kept ready on the device."""
KEPT_BYTES = 8 << 30
"""Bytes of models on the disk; the one used longest ago is deleted first."""
PIXELS = 1 << 26
"""Pixels of a tile, at most; a network's tile has 4 million."""
ZOOM = 64
"""How much a frame may be rescaled."""
KEY = re.compile(r"[0-9a-f]{64}")


Unpacked = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Header and arrays of an answer."""


class UnknownModelError(ModelError):
    """A model that the server has not been given."""


class Service:
    """The networks of a server.

    Parameters
    ----------
    device
        A device's name, as `pick_device` takes it.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)
        self._folder = Path(tempfile.mkdtemp(prefix="napari-unet-serve-"))
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def device_name(self) -> str:
        """What networks are run on, for people."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    def hello(self) -> dict[str, Any]:
        """Return what users need to know of the server."""
        fast = has_fast_bfloat16(self.device)
        return {"version": __version__, "device": self.device_name, "fast_bfloat16": fast}

    def close(self) -> None:
        """Delete the models that users sent."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def has(self, key: str) -> bool:
        """Return whether a model is here."""
        return KEY.fullmatch(key) is not None and (self._folder / key).is_dir()

    def take_model(self, key: str, body: bytes) -> None:
        """Keep a model that a user sends.

        Raises
        ------
        UnetError
            It is none, or another one than the key says.
        ValueError
            The message is damaged.
        """
        message = unpack(body, MODEL_LIMIT)
        if not KEY.fullmatch(key):
            raise InputError("the model's key is no hash.")
        card = ModelCard.from_text(str(message.header["card"]))
        if model_key(card.spec.to_json(), card.hash) != key:
            raise ModelError("the model is another one than its key says.")
        partial = self._folder / f"{key}.part-{threading.get_ident()}"
        try:
            partial.mkdir()
            (partial / CARD).write_text(card.to_text(), encoding="utf-8")
            message.arrays["weights"].tofile(partial / WEIGHTS)
            model = load_model(partial, str(self.device))  # checks hash, weights and spec
            with self._lock:
                if not self.has(key):
                    partial.rename(self._folder / key)
                self._keep(key, model)
                self._make_room(key)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def prepare(self, key: str, body: bytes) -> Callable[[], Unpacked]:
        """Read and check a request; return what computes its answer, for the device's thread.

        The answer is packed elsewhere, so that the device goes on meanwhile.

        Raises
        ------
        UnknownModelError
            The model has to be sent first.
        UnetError, ValueError
            A request that cannot be understood.
        """
        message = unpack(body, BODY_LIMIT)
        if not self.has(key):
            raise UnknownModelError("the model is not here.")
        request = _Request(message)
        if request.kind == FEATURES or "image" in message.arrays:
            image = _image(message)
            return lambda: _run_image(self._model(key), request, image)
        frame, tile = _frame(message.header, message.arrays["pixels"]), _tile(message.header)
        return lambda: _run_tile(self._model(key), request, frame, tile)

    def _model(self, key: str) -> Model:
        with self._lock:
            model = self._models.get(key)
            if model is None:
                if not self.has(key):
                    raise UnknownModelError("the model is not here.")
                model = load_model(self._folder / key, str(self.device))
            self._keep(key, model)
            return model

    def _keep(self, key: str, model: Model) -> None:
        self._models[key] = model
        self._models.move_to_end(key)
        (self._folder / key).touch()
        while len(self._models) > LOADED:
            self._models.popitem(last=False)

    def _make_room(self, newest: str) -> None:
        """Delete the models used longest ago where all together are too large."""
        folders = sorted(
            (path for path in self._folder.iterdir() if KEY.fullmatch(path.name)),
            key=lambda path: (path.name == newest, path.stat().st_mtime),
        )
        sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in folders]
        for folder, size in zip(folders[:-1], list(sizes), strict=False):
            if sum(sizes) <= KEPT_BYTES:
                break
            shutil.rmtree(folder)
            self._models.pop(folder.name, None)
            sizes.remove(size)


class _Request:
    """What is asked for, with choices that exist."""

    def __init__(self, message: Message) -> None:
        header = message.header
        self.kind = _choice(header["kind"], (MAPS, BASINS, CLASSES, FEATURES))
        self.precision = _choice(header["precision"], tuple(DTYPES))
        self.augment = _choice(header["augment"], (OFF, FLIPS, TURNS))
        threshold = float(header.get("threshold", 0.5))
        self.decoding = DecodeSettings().updated(threshold=threshold)


def _run_image(model: Model, request: _Request, image: np.ndarray) -> Unpacked:
    """Run a prepared image (C, *spatial); answer with raw maps or features."""
    _check_fits(model, image.shape[0], image.ndim - 1)
    runner = model.runner(request.precision, request.augment)
    tiles = torch.from_numpy(image)[None]
    if request.kind == FEATURES:
        seen = runner.trunk(tiles)[0].float().clamp(-LARGEST, LARGEST)
        return {"kind": MAPS}, {"maps": seen.half().cpu().numpy()}
    return {"kind": MAPS}, {"maps": runner(tiles)[0].cpu().numpy()}


def _run_tile(model: Model, request: _Request, frame: Frame, tile: Tile) -> Unpacked:
    """Run a tile of a frame; answer with raw maps, basins or classes."""
    spec = model.spec
    _check_fits(model, len(frame.channels), len(frame.size))
    if (request.kind == BASINS) != (spec.head == "instance") and request.kind != MAPS:
        raise InputError(f"a head of kind {spec.head!r} gives no {request.kind}.")
    runner = model.runner(request.precision, request.augment)
    on_device = request.kind == BASINS and decodes_on(model.device)
    tiles = TileRunner(runner, spec, frame, edge=1, on_device=on_device)
    if math.prod(tiles.network_tile(tile).read_shape) > PIXELS:
        raise InputError("a tile is too large.")
    raw = tiles.collect(tiles.launch([tile])[0])
    if request.kind == BASINS:
        decoder = InstanceDecoder(model, request.decoding, None, False)
        decoder.start((), frame.size)
        basins = decoder.find(tile, raw)
        arrays = {f.name: getattr(basins, f.name) for f in fields(basins)}
    elif request.kind == CLASSES:
        arrays = {"classes": SemanticDecoder.find(tile, raw)}
    else:
        assert isinstance(raw, torch.Tensor)
        arrays = {"maps": raw.cpu().numpy()}
    return {"kind": request.kind}, arrays


def _check_fits(model: Model, channels: int, ndim: int) -> None:
    spec: ModelSpec = model.spec
    if (channels, ndim) != (spec.in_channels, spec.ndim):
        raise InputError(
            f"the model {model.name!r} takes {spec.in_channels} channels of {spec.ndim} axes, not "
            f"{channels} of {ndim}."
        )


def _image(message: Message) -> np.ndarray:
    """Return a prepared image; channels that are alike were sent once."""
    image, order = message.arrays["image"], message.header["order"]
    if image.dtype != np.float32 or image.ndim not in (3, 4) or len(order) > 64:
        raise InputError("an image has to be float32, (C, Y, X) or (C, Z, Y, X).")
    if not all(type(n) is int and 0 <= n < len(image) for n in order):
        raise InputError("an image lacks channels.")
    if math.prod(image.shape[1:]) > PIXELS:
        raise InputError("an image is too large.")
    return np.ascontiguousarray(image[order])


def _frame(header: dict[str, Any], pixels: np.ndarray) -> Frame:
    """Return the frame of a tile: its size, and the pixels that the tile needs."""
    described = header["frame"]
    size, shape = _sizes(described["size"]), _sizes(described["shape"])
    origin = tuple(_whole(n, 2**40) for n in header["origin"])
    channels = tuple(_whole(n, 63) for n in described["channels"])
    ndim = len(size)
    fits = ndim in (2, 3) and len(shape) == len(origin) == ndim == pixels.ndim - 1
    if not fits or not channels or max(channels) >= len(pixels) or len(channels) > 64:
        raise InputError("a frame's numbers of axes or channels disagree.")
    for n, m, start, part in zip(size, shape, origin, pixels.shape[1:], strict=True):
        if not 0 < part <= n - start or max(n, m) > ZOOM * min(n, m):
            raise InputError("a frame's sizes disagree.")
    low, high = (np.array(described["normaliser"][name], np.float64) for name in ("low", "high"))
    if low.shape != high.shape or low.shape != (len(pixels),):
        raise InputError("a frame's intensities do not fit its channels.")
    whole = (len(pixels), *size)
    data: Any = LoadedPart(pixels, (0, *origin), whole)
    stack = Stack(data, "CZYX"[:1] + "ZYX"[-ndim:])
    return Frame(stack, (), channels, Normaliser(low, high, "The image"), size, shape)


def _tile(header: dict[str, Any]) -> Tile:
    def window(name: str) -> Window:
        least = -1 if name == "crop" else 0  # of a rescaled frame, which does not use it
        edges = header["tile"][name]
        return tuple(slice(_whole(a, 2**40, least), _whole(b, 2**40)) for a, b in edges)

    tile = Tile(*(window(field.name) for field in fields(Tile)))
    for part in (tile.read, tile.write, tile.outer, tile.crop):
        edges = [w.stop - w.start for w in part]
        if min(edges, default=0) < 1 or math.prod(edges) > PIXELS:
            raise InputError("a tile is empty or too large.")
    return tile


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(_whole(n, 2**40, 1) for n in values)


def _whole(value: Any, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"{value!r:.40} is no whole number from {least} to {most}.")
    return value


def _choice(value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise InputError(f"{value!r:.40} is none of {', '.join(choices)}.")
    return str(value)
