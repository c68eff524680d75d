"""A server as a device (``--device remote:HOST:PORT``): its GPU computes what this computer sends.

A tile goes over as the pixels of the image that it needs, in their own type, and comes back as what
its decoding needs: the basins of objects, or classes. That is less than a tenth of the network's
maps, which come back only where maps are what is wanted. Features for clicks come back once and are
kept here, so that clicks are answered without the line. Sizes are estimated here, on small parts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from napari_unet.core.errors import DeviceError
from napari_unet.core.instances.watershed import Basins
from napari_unet.core.server_access import ServerAddress, find_access
from napari_unet.nn.inference.runner import FLIPS, OFF, TURNS, Runner, get_flips
from napari_unet.nn.remote.connection import (
    PendingAnswer,
    SentModel,
    ServerConnection,
    model_key,
)
from napari_unet.nn.unet.net import crop

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.remote.message import Message
    from napari_unet.nn.unet.net import UNet

MAPS, BASINS, CLASSES, FEATURES = "maps", "basins", "classes", "features"
"""What a server can be asked for: raw maps, the basins of an instance head, the most probable class
of each pixel, or the trunk's features."""


class Wanted(NamedTuple):
    """What becomes of a tile on the server: maps, or what decoding makes of them.

    Attributes
    ----------
    kind
        `MAPS`, `BASINS` or `CLASSES`.
    threshold
        Probability above which a pixel is an object's, for basins.
    """

    kind: str = MAPS
    threshold: float = 0.5


WANT_MAPS = Wanted()
"""What is wanted where nothing decodes."""


@dataclass(frozen=True, eq=False)
class RemoteDevice:
    """A server that runs networks.

    Attributes
    ----------
    connection
        To the server.
    device
        What it says it computes on, such as "cuda (NVIDIA H200)".
    fast_bfloat16
        Whether that multiplies bfloat16 itself.
    """

    connection: ServerConnection
    device: str
    fast_bfloat16: bool

    @classmethod
    def connect(cls, name: str) -> RemoteDevice:
        """Reach the server of a device ``remote:ADDRESS``.

        Raises
        ------
        DeviceError
            No address, no or a wrong token, or nobody answers.
        """
        address = ServerAddress.parse(name.partition(":")[2])
        connection = ServerConnection(address, find_access(address))
        hello = connection.hello()
        return cls(connection, str(hello["device"]), bool(hello.get("fast_bfloat16")))

    def __str__(self) -> str:
        """Return the device's name, and what the server computes on."""
        return f"{self.connection.name} ({self.device})"

    def runner(self, net: UNet, sent: SentModel, precision: str) -> RemoteRunner:
        """Return the network ready to run on the server."""
        device = torch.device("cpu")
        return RemoteRunner(
            net, device, torch.float32, connection=self.connection, sent=sent, precision=precision
        )


@dataclass(frozen=True, eq=False)
class RemoteRunner(Runner):
    """A network that a server runs; small things are done here, in float32.

    Attributes
    ----------
    connection, sent
        The server, and the model that it is given if it does not have it.
    precision
        Number format in which the server runs it.
    """

    connection: ServerConnection = field(kw_only=True)
    sent: SentModel = field(kw_only=True)
    precision: str = field(kw_only=True)

    def __call__(
        self, tiles: Tensor, core: Window | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Run tiles, float32 (N, C, *spatial); raw maps, float32, on this computer.

        `features` would spare nothing: the server computes all views.
        """
        maps = self._ask_for(MAPS, tiles).float()
        return crop(maps, core) if core else maps

    def trunk(self, tiles: Tensor, core: Window | None = None) -> Tensor:
        """Return the features of tiles, float16 (N, width, *spatial), on this computer."""
        features = self._ask_for(FEATURES, tiles)
        return crop(features, core) if core else features

    def maps(self, tile: Tensor) -> Tensor:
        """Return maps of one tile, computed here: what is looked at is small."""
        return self._here.maps(tile)

    def summary(self, tiles: Tensor, *, hold: bool = False) -> tuple[Tensor, Tensor]:
        """Return maps of tiles and the first one's summary, computed here; nothing is held."""
        return self._here.summary(tiles)

    def read(self, features: Tensor) -> Tensor:
        """Read raw maps off features, here."""
        return self._here.read(features)

    def send(self, frame: Frame, part: Tile, tile: Tile, wanted: Wanted) -> PendingAnswer:
        """Have a tile computed.

        Parameters
        ----------
        frame
            What it is a tile of.
        part
            What the network computes for it, in the network's pixels.
        tile
            In the stack's pixels.
        wanted
            What is to come back.
        """
        distinct = tuple(sorted(set(frame.channels)))
        source = frame.source(part.read)
        pixels = frame.stack.read(frame.index, source, distinct)
        header = {
            "kind": wanted.kind,
            "threshold": wanted.threshold,
            "precision": self.precision,
            "augment": self._augment,
            "frame": {
                "size": frame.size,
                "shape": frame.shape,
                "channels": [distinct.index(channel) for channel in frame.channels],
                "normaliser": frame.normaliser.to_json(),
            },
            "origin": [w.start for w in source],
            "tile": {name: _integers(window) for name, window in asdict(tile).items()},
        }
        return self.connection.send(self.sent, header, {"pixels": pixels})

    def _ask_for(self, kind: str, tiles: Tensor) -> Tensor:
        """Have prepared images computed, several at a time."""
        augment = OFF if kind == FEATURES else self._augment
        header = {"kind": kind, "precision": self.precision, "augment": augment}
        pending = []
        try:
            for image in tiles:
                channels, order = torch.unique(image, dim=0, return_inverse=True)
                described = header | {"order": order.tolist()}
                pending.append(
                    self.connection.send(self.sent, described, {"image": channels.numpy()})
                )
            return torch.stack([torch.from_numpy(p.result().arrays["maps"]) for p in pending])
        finally:
            for one in pending:
                one.cancel()

    @property
    def _augment(self) -> str:
        ndim = self.net.spec.ndim
        return next(name for name in (OFF, FLIPS, TURNS) if get_flips(name, ndim) == self.views)

    @cached_property
    def _here(self) -> Runner:
        return Runner.from_net(self.net, self.device, "float32")


def read_answer(message: Message) -> Tensor | Basins | np.ndarray:
    """Return what came back for a tile.

    Raises
    ------
    DeviceError
        It is not what was asked for.
    """
    arrays = message.arrays
    try:
        if message.header["kind"] == BASINS:
            return Basins(**arrays)
        if message.header["kind"] == CLASSES:
            return arrays["classes"]
        return torch.from_numpy(arrays["maps"])
    except (KeyError, TypeError) as error:
        raise DeviceError(
            "The server's answer cannot be used; use the same version there."
        ) from error


def sent_model(folder: Any, spec: ModelSpec, weights_hash: str) -> SentModel:
    """Return a model as it is given to a server."""
    return SentModel(folder, model_key(spec.to_json(), weights_hash))


def _integers(window: Window) -> list[list[int]]:
    return [[int(w.start), int(w.stop)] for w in window]
