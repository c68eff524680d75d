"""A network that others built, as TorchScript or ONNX: from our tiles to its input and back.

It takes a tile of any size: it is padded to one that the network takes, its axes are put into the
network's order, and from the output come raw maps as our own heads give them, so that everything
behind (tiles, watershed, files) is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from napari_unet.core.errors import ModelError
from napari_unet.core.image.foreign_frame import apply_operation
from napari_unet.core.io.files import first_line
from napari_unet.core.settings.foreign_spec import CLASSES, OBJECTS, ONNX, ForeignSpec
from napari_unet.nn.inference.onnx_runtime import open_session
from napari_unet.nn.unet.convert import read_torchscript
from napari_unet.nn.unet.net import pad_symmetric

if TYPE_CHECKING:
    from pathlib import Path

NEARLY = 1e-6
"""Probabilities are kept so far from 0 and 1, that their logarithms stay finite."""

Run = Callable[[np.ndarray], list[np.ndarray]]
"""Runs the network on one input, and returns its outputs."""


class ForeignNet:
    """A network of others that stands where a `UNet` does.

    Parameters
    ----------
    spec
        What is known of it.
    run
        Runs it on an array in its own order of axes.
    name
        What messages call it.
    """

    def __init__(self, spec: ForeignSpec, run: Run, name: str) -> None:
        self.spec, self.run, self.name = spec, run, name

    @classmethod
    def load(
        cls, spec: ForeignSpec, path: Path, device: torch.device, provider: str, name: str
    ) -> ForeignNet:
        """Load the weights; for ONNX `provider` is one of `onnx_runtime.PROVIDERS`.

        Raises
        ------
        ModelError
            The file is damaged, or something else.
        """
        if spec.runtime == ONNX:
            session = open_session(path, provider)
            first = session.get_inputs()[0].name
            return cls(spec, lambda values: list(session.run(None, {first: values})), name)
        net = read_torchscript(path, device)

        def run(values: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                found: Any = net(torch.from_numpy(values).to(device))
            several = found if isinstance(found, (list, tuple)) else [found]
            return [part.cpu().numpy() for part in several]

        return cls(spec, run, name)

    def __call__(self, images: Tensor) -> Tensor:
        """Map prepared images (N, C, *spatial) of any size to raw maps of the spec's head."""
        answers = [self._raw(self.output(image)) for image in images.cpu().numpy()]
        return torch.from_numpy(np.stack(answers)).to(images.device)

    def output(self, image: np.ndarray) -> np.ndarray:
        """Return the network's output for one image, postprocessed: (C, *spatial) to (K, *spatial).

        Raises
        ------
        ModelError
            The network fails, or its output has another shape than its description says.
        """
        spec, size = self.spec, image.shape[1:]
        near = spec.shrink
        sizes = [spec.input_size(a, n + 2 * near[a]) for a, n in enumerate(size)]
        widths = [
            (shrink, total - shrink - n) for n, shrink, total in zip(size, near, sizes, strict=True)
        ]
        padded = pad_symmetric(torch.from_numpy(image), widths).numpy()
        values = _to_axes(padded, spec.input_axes, spec.ndim).astype(spec.dtype)
        try:
            outputs = self.run(np.ascontiguousarray(values))
        except Exception as error:  # TorchScript and ONNX Runtime raise errors of their own
            if _lacks_memory(error):
                raise
            raise ModelError(
                f"The network of {self.name!r} failed on an input of {values.shape} "
                f"({first_line(error)})."
            ) from error
        if spec.output >= len(outputs):
            raise ModelError(f"The network of {self.name!r} gives {len(outputs)} outputs only.")
        found = _from_axes(outputs[spec.output], spec.output_axes, spec.ndim, self.name)
        wanted = [total - 2 * shrink for total, shrink in zip(sizes, near, strict=True)]
        if list(found.shape[1:]) != wanted:
            raise ModelError(
                f"The network of {self.name!r} turned {tuple(sizes)} pixels into "
                f"{found.shape[1:]}, its description says {tuple(wanted)}."
            )
        found = found[(slice(None), *(slice(0, n) for n in size))].astype(np.float32)
        for step in spec.postprocessing:
            found = apply_operation(found, step)
        return found.astype(np.float32, copy=False)

    def _raw(self, found: np.ndarray) -> np.ndarray:
        """Return an output as the raw maps of our heads: logits, and the height of objects."""
        spec = self.spec
        if spec.meaning == OBJECTS:
            foreground = found[spec.foreground or 0]
            if spec.distance is not None:
                height = found[spec.distance]
            elif spec.boundary is not None:
                # What is no border, as far as it is an object at all.
                height = self._probability(foreground) - self._probability(found[spec.boundary])
            else:
                height = self._probability(foreground)
            return np.stack([self._logit(foreground), height.astype(np.float32)])
        if spec.meaning != CLASSES:
            return found
        if len(found) == 1:
            return np.concatenate([np.zeros_like(found), self._logit(found)])
        return np.log(np.maximum(found, NEARLY)) if spec.probabilities else found

    def _logit(self, values: np.ndarray) -> np.ndarray:
        if not self.spec.probabilities:
            return values
        inside = np.clip(values, NEARLY, 1 - NEARLY)
        return np.asarray(np.log(inside / (1 - inside)), dtype=np.float32)

    def _probability(self, values: np.ndarray) -> np.ndarray:
        return values if self.spec.probabilities else 1 / (1 + np.exp(-values))

    def state_dict(self) -> NoReturn:
        """Refuse: the weights are no state dict of ours."""
        raise ModelError(
            f"The model {self.name!r} was built by others and can be run, but not tuned or "
            "rebuilt; begin with a model of napari-unet."
        )


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _to_axes(image: np.ndarray, axes: str, ndim: int) -> np.ndarray:
    """Put (C, *spatial) into a network's order; axes of one entry are added."""
    own = "c" + "zyx"[-ndim:]
    present = [letter for letter in axes if letter in own]
    if "c" not in axes:
        image, own = image[0], own[1:]
    values = image.transpose([own.index(letter) for letter in present])
    return values[tuple(slice(None) if letter in own else None for letter in axes)]


def _from_axes(values: np.ndarray, axes: str, ndim: int, name: str) -> np.ndarray:
    """Bring a network's output into (K, *spatial); axes of one entry are dropped."""
    if values.ndim != len(axes):
        raise ModelError(
            f"The output of {name!r} has {values.ndim} axes, its description says {axes!r}."
        )
    wanted = "c" + "zyx"[-ndim:]
    values = values[tuple(slice(None) if letter in wanted else 0 for letter in axes)]
    left = [letter for letter in axes if letter in wanted]
    if "c" not in left:
        values, left = values[None], ["c", *left]
    return values.transpose([left.index(letter) for letter in wanted])
