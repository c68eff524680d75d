"""A model that others built into the store: a bioimage.io package, or plain ONNX or TorchScript.

It is tried before it is kept: on its own test image, if it brings one, else on noise. TorchScript
is a program: whoever imports it is asked once. Pickled weights are never opened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.errors import (
    ModelError,
    OwnTestError,
    SettingsError,
    UnetError,
    UntrustedError,
)
from napari_unet.core.image.foreign_frame import ForeignNormaliser
from napari_unet.core.io.files import UNREADABLE, check_exists, expand_path, first_line
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.archive import import_steps, scratch_folder
from napari_unet.core.models.bioimageio import (
    NATIVE_FILES,
    Package,
    find_description,
    read_package,
)
from napari_unet.core.models.card import ModelCard
from napari_unet.core.models.folder import CARD, WEIGHTS
from napari_unet.core.models.foreign_folder import (
    CODE,
    file_digest,
    is_trusted,
    trust,
    write_foreign,
)
from napari_unet.core.models.output_meaning import with_meaning
from napari_unet.core.models.package_files import (
    LARGEST,
    ONNX_SUFFIXES,
    TORCHSCRIPT_SUFFIXES,
    fetch_steps,
    is_torchscript,
    is_web_address,
    unpack_steps,
)
from napari_unet.core.models.store import ModelEntry, get_free_folder, get_free_name
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.foreign_spec import (
    OBJECTS,
    ONNX,
    TORCHSCRIPT,
    ForeignSpec,
    Operation,
)
from napari_unet.core.settings.weight_options import WeightOptions
from napari_unet.nn.inference.foreign_net import ForeignNet
from napari_unet.nn.inference.onnx_runtime import external_files, import_runtime

if TYPE_CHECKING:
    import os
    from pathlib import Path

Ask = Callable[[str], bool]
"""Asks the user a question of yes or no."""


def import_foreign(
    source: str | os.PathLike[str],
    name: str | None = None,
    *,
    ask: Ask | None = None,
    anyway: bool = False,
    options: WeightOptions | None = None,
) -> ModelEntry:
    """Do what `import_foreign_steps` does."""
    return run_to_end(import_foreign_steps(source, name, ask=ask, anyway=anyway, options=options))


def import_foreign_steps(
    source: str | os.PathLike[str],
    name: str | None = None,
    *,
    ask: Ask | None = None,
    anyway: bool = False,
    options: WeightOptions | None = None,
    another_name: bool = False,
) -> Generator[Progress, None, ModelEntry]:
    """Import a model that others built; yield progress, and return its entry in the store.

    Parameters
    ----------
    source
        A package of bioimage.io (.zip, folder, description), its address on the web, or a file of
        weights (.onnx, .torchscript).
    name
        Name in the store; None: one made from its title.
    ask
        Asks whether TorchScript may run; None: it may not.
    anyway
        Whether a network is kept that fails its own test; its card says so.
    options
        For plain weights, and what the output means.
    another_name
        As for `import_steps`, for one of our own models in a package.

    Returns
    -------
    ModelEntry
        Of what is there now; one of our own models in a package becomes exactly that again.

    Raises
    ------
    UntrustedError
        It is a program, and may not run.
    OwnTestError
        It fails its own test, and `anyway` was not given.
    UnetError
        The source cannot be read or run, or the name is taken.
    """
    options = options or WeightOptions()
    if name is not None:
        get_free_folder(name)
    with scratch_folder() as scratch:
        given = str(source)
        if is_web_address(given):
            path = yield from fetch_steps(given, scratch)
        else:
            path = expand_path(source)
        check_exists(path)
        if path.suffix.lower() in (*ONNX_SUFFIXES, *TORCHSCRIPT_SUFFIXES):
            package = _plain_weights(path, options)
        else:
            inside = yield from unpack_steps(path, _made(scratch / "package"))
            if all((inside / file).is_file() for file in (CARD, WEIGHTS)):
                own = _own_files(inside, _made(scratch / "own"))
                return (yield from import_steps(own, name, another_name=another_name))
            yield Progress(0, 0, "reading the description")
            description = find_description(inside)
            assert description is not None
            package = read_package(description, onnx=_has_runtime())
            package = replace(package, spec=_with_options(package.spec, options))
        if package.spec.runtime == ONNX and (others := external_files(package.weights)):
            raise ModelError(
                f"The weights of {given} lie in further files ({', '.join(others)}), which are not "
                "opened: a file that names others could name any. Save them as one file: "
                f"onnx.save(onnx.load({package.weights.name!r}), 'whole.onnx')."
            )
        if package.spec.runtime == TORCHSCRIPT:
            digest = file_digest(package.weights)
            if not is_trusted(digest) and not (ask and ask(CODE)):
                raise UntrustedError(
                    f"{given} holds TorchScript, a program that runs with your rights; if you "
                    "trust where it comes from, import it with --trust."
                )
            trust(digest)
        return (yield from _keep(package, name, anyway))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _has_runtime() -> bool:
    try:
        import_runtime()
    except UnetError:
        return False
    return True


def _own_files(package: Path, folder: Path) -> Path:
    """Bring the model of ours that a package carries into a folder of its own."""
    for file in NATIVE_FILES:
        if (package / file).is_file():
            (package / file).rename(folder / file)
    return folder


def _with_options(spec: ForeignSpec, options: WeightOptions) -> ForeignSpec:
    given = {
        key: getattr(options, key)
        for key in ("boundary", "distance")
        if getattr(options, key) is not None
    }
    if given:
        key, channel = next(iter(given.items()))
        if channel >= len(spec.names):
            raise SettingsError(f"{key} is {channel}; the output has {len(spec.names)} channels.")
        found = with_meaning(spec, wanted=OBJECTS)
        cleared = replace(found, boundary=None, distance=None)
        return replace(cleared, **given)
    return with_meaning(spec, wanted=options.decode) if options.decode != "auto" else spec


def _plain_weights(path: Path, options: WeightOptions) -> Package:
    """Describe a file of weights by the options.

    Raises
    ------
    ModelError
        It is too large, or a pickle.
    """
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path} is larger than a model's weights may be ({LARGEST >> 30} GB).")
    runtime = ONNX if path.suffix.lower() in ONNX_SUFFIXES else TORCHSCRIPT
    if runtime == TORCHSCRIPT and not is_torchscript(path):
        raise ModelError(
            f"{path} is no TorchScript; if it holds pickled weights (a state dict), they are not "
            "opened, as a pickle could do anything: export it as ONNX or TorchScript."
        )
    letters = [letter for letter in "zyx" if letter in options.axes]
    count = len(letters)
    step = 0 if options.size else options.multiple
    before = {
        "percentiles": Operation("scale_range", {"min_percentile": 1.0, "max_percentile": 99.8}),
        "standard": Operation("zero_mean_unit_variance"),
        "range": Operation("scale_range"),
    }
    halo = min(options.halo, options.size // 4) if options.size else options.halo
    spec = ForeignSpec(
        ndim=count,
        in_channels=options.channels if "c" in options.axes else 1,
        head="semantic",
        classes=2,
        runtime=runtime,
        input_axes=options.axes,
        output_axes=options.axes,
        minimum=(options.size or options.multiple,) * count,
        step=(step,) * count,
        halo=(halo,) * count,
        shrink=(0,) * count,
        preprocessing=(before[options.normalise],) if options.normalise != "none" else (),
        postprocessing=() if options.activation == "none" else (Operation(options.activation),),
        names=("unknown",),
    )
    card = {"training": {"source": path.name}}
    package = Package(name=path.stem, spec=spec, weights=path, card=card)
    return replace(package, spec=replace(spec, names=()), card={**card, "options": options})


def _keep(
    package: Package, name: str | None, anyway: bool
) -> Generator[Progress, None, ModelEntry]:
    """Try a network and write it into the store."""
    yield Progress(0, 0, "loading the network")
    card = dict(package.card)
    options = card.pop("options", None)
    net = ForeignNet.load(
        package.spec, package.weights, torch.device("cpu"), "cpu", name or package.name
    )
    spec = package.spec
    if options is not None:  # of plain weights not even the number of outputs is known
        spec = _with_options(_named(net), options)
        net.spec = spec
    yield Progress(0, 0, "trying the network on its test")
    problem = ""
    try:
        found = _try(net, package)
    except ModelError as error:
        if not anyway:
            raise OwnTestError(str(error)) from error
        problem, found = str(error), None
    yield Progress(0, 0, "writing it into the store")
    if found is not None:
        spec = replace(spec, probabilities=_gives_probabilities(found, spec))
    training = card.pop("training", {})
    if problem:
        training["test"] = f"failed, imported anyway: {problem}"
    elif package.test_input is not None:
        training["test"] = "passed its own test"
    name = name or get_free_name(package.name)
    folder = get_free_folder(name)
    made = ModelCard(
        name=name,
        spec=spec,
        training=training,
        decode=_decoding(spec),
        licence=card.get("licence", ""),
    )
    cover = package.cover.read_bytes() if package.cover else b""
    made = write_foreign(folder, made, spec, package.weights, cover, new=True)
    return ModelEntry(name, folder, bundled=False, card=made)


def _gives_probabilities(found: np.ndarray, spec: ForeignSpec) -> bool:
    """Return whether what should be probabilities lies between 0 and 1; a distance need not."""
    asked = [channel for channel in (spec.foreground, spec.boundary) if channel is not None]
    values = found[asked] if spec.meaning == OBJECTS and asked else found
    return bool(values.min() >= -1e-3 and values.max() <= 1 + 1e-3)


def _decoding(spec: ForeignSpec) -> dict[str, float]:
    return {"threshold": 0.5, "merge": 0.2, "min_size": 10} if spec.meaning == OBJECTS else {}


def _named(net: ForeignNet) -> ForeignSpec:
    """Return the spec of plain weights with a name for each channel of the output."""
    spec = replace(net.spec, names=("output",))
    probe = ForeignNet(replace(spec, postprocessing=()), net.run, net.name)
    count = len(probe.output(_noise(spec)))
    names = tuple(f"channel{k}" for k in range(count)) if count > 1 else ("output",)
    return with_meaning(replace(spec, names=names))


def _noise(spec: ForeignSpec) -> np.ndarray:
    shape = (spec.in_channels, *(spec.input_size(a, 2 * g) for a, g in enumerate(spec.stride)))
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _try(net: ForeignNet, package: Package) -> np.ndarray:
    """Run a network on its test image, or on noise, and return its output.

    Raises
    ------
    ModelError
        It fails, or its output differs from the package's.
    """
    if package.test_input is None or package.test_output is None:
        return net.output(_noise(net.spec))
    values, wanted = _load(package.test_input), _load(package.test_output)
    spec = net.spec
    image = _frame(values, spec.input_axes, spec)
    wanted = _frame(wanted, spec.output_axes, spec)
    stack = open_stack(image, "C" + "ZYX"[-spec.ndim :])
    channels = tuple(range(spec.in_channels))
    prepared = ForeignNormaliser.measure(stack, (), spec.ndim, channels, spec.preprocessing)
    # In one piece and as it is, unless the network asks for another size than its own test has.
    found = net.output(prepared(image))
    found = _cropped(found, spec) if found.shape != wanted.shape else found
    if found.shape != wanted.shape:
        raise ModelError(
            f"The network's output of its own test is {found.shape}, the package says "
            f"{wanted.shape}."
        )
    absolute, relative = package.tolerance
    off = np.abs(found - wanted) > absolute + relative * np.abs(wanted)
    if off.mean() > 1e-4:
        raise ModelError(
            f"The network fails its own test: {off.mean():.0%} of the values differ, by up to "
            f"{np.abs(found - wanted).max():.2g}."
        )
    return found


def _cropped(found: np.ndarray, spec: ForeignSpec) -> np.ndarray:
    """Return what a network that crops its output gives of an image that is not padded for it."""
    inner = (slice(s, n - s) for s, n in zip(spec.shrink, found.shape[1:], strict=True))
    return found[(slice(None), *inner)]


def _load(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except UNREADABLE as error:
        raise ModelError(
            f"The package's {path.name} cannot be read ({first_line(error)}); download it again."
        ) from error


def _frame(values: np.ndarray, axes: str, spec: ForeignSpec) -> np.ndarray:
    """Bring a test tensor into (C, *spatial)."""
    if values.ndim != len(axes):
        raise ModelError(
            f"A test tensor of the package has {values.ndim} axes, its description says {axes!r}."
        )
    wanted = "c" + "zyx"[-spec.ndim :]
    values = values[tuple(slice(None) if letter in wanted else 0 for letter in axes)]
    left = [letter for letter in axes if letter in wanted]
    if "c" not in left:
        values, left = values[None], ["c", *left]
    return np.asarray(values.transpose([left.index(letter) for letter in wanted]))
