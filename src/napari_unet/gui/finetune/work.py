"""What a fine-tuning in the window does in its thread: from the journals to a tuned model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError, ModelError
from napari_unet.core.models.store import check_name, check_store, get_free_folder, list_models
from napari_unet.core.progress import Progress, map_steps
from napari_unet.core.settings.fields import setting
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    RunState,
    forget_training,
    lock_training,
    training_folder,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from filelock import FileLock

    from napari_unet.core.annotations.training_set import Correction
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.finetune import Tuning

WIDTH = 16
"""Channels of a network from scratch, at full resolution."""


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is trained."""

    scratch: bool = setting(False, "forget what the model knows and train a new network")
    ndim: int | None = setting(
        None, "of a new network: 2 for planes, 3 for volumes. Empty: the model's", low=2, high=3
    )
    depth: int | None = setting(
        None, "of a new network: how often it pools. Empty: 4 for planes, 3 for volumes", low=1,
        high=7,
    )  # fmt: skip
    width: int | None = setting(
        None, "of a new network: channels at full resolution. Empty: 16", low=1, high=256
    )
    classes: int | None = setting(
        None, "where labels are classes, how many, background included: another number than the "
        "model's puts a new head on it. Empty: the model's", low=2, high=255,
    )  # fmt: skip


@dataclass(frozen=True)
class TuneRequest:
    """What the form asks for.

    Attributes
    ----------
    base
        Name of the model to tune; its corrections are what is learned.
    name
        Of the new model.
    touched
        Whether objects that were only touched count as known, too.
    resume
        Whether to go on from the checkpoint of an unfinished training.
    """

    base: str
    name: str
    device: str = "auto"
    settings: TrainSettings = field(default_factory=TrainSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    touched: bool = True
    resume: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what a plan keeps of it."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("name", "resume")}

    @classmethod
    def from_plan(cls, name: str, plan: RunState) -> TuneRequest:
        """Return the request to go on with a training; raises InputError if that cannot be done."""
        values = dict(plan.request)
        try:
            settings = TrainSettings(**values.pop("settings"))
            network = NetworkSettings(**values.pop("network"))
            return cls(name=name, settings=settings, network=network, resume=True, **values)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The training of {name!r} was not begun in the window; go on with it by "
                "`napari-unet train ... --resume`."
            ) from error


class TuneWork:
    """One fine-tuning with what was corrected; nothing is in the store before `keep`.

    Parameters
    ----------
    request
        What to do.
    opened
        Stacks that are open in the window: images that lie in no file are read from them.

    Attributes
    ----------
    tuning
        The engine's; None until the corrections are read.
    objects, images
        How much is learned from; of classes, there are no objects.
    remarks
        A sentence for each image that was left out.
    """

    def __init__(self, request: TuneRequest, opened: Sequence[Stack] = ()) -> None:
        self.request, self.opened = request, tuple(opened)
        self.folder = training_folder(request.name)
        self.tuning: Tuning | None = None
        self.objects = self.images = 0
        self.remarks: list[str] = []
        self._lock: FileLock | None = None

    @property
    def usable(self) -> bool:
        """Whether anything was learned, so that there is something to keep or discard."""
        return self.tuning is not None and self.tuning.state.step > 0

    def steps(self) -> Generator[Progress, None, None]:
        """Gather the corrections and train; yields at least twice a second.

        Raises
        ------
        UnetError
            Whatever the user can mend: nothing corrected, a store that cannot be written.
        """
        request = self.request
        yield Progress(0, 0, "loading the model")
        get_free_folder(check_name(request.name))
        check_store()
        self._lock = lock_training(self.folder)
        if (self.folder / CHECKPOINT).exists() and not request.resume:
            raise ModelError(
                f"A training of {request.name!r} did not finish; go on with it or forget it, or "
                "choose another name."
            )
        from napari_unet.nn.training.finetune import begin_tuning

        model = self._model()
        yield Progress(0, 0, "reading the corrections")
        corrections = yield from self._corrections()
        samples = yield from self._samples(model, corrections)
        card = samples.card()
        self.objects, self.images = card["objects"], len({item.source for item in samples.items})
        yield Progress(0, 0, "preparing")
        self.tuning = begin_tuning(
            model,
            samples,
            request.settings,
            self.folder,
            data_hash=card["data_hash"],
            resume=request.resume,
            request=request.to_json(),
        )
        yield from self.tuning.steps()
        if self.tuning.state.step == 1:
            self.remarks.append("There was time for one step only; give it more minutes.")

    def keep(self) -> str:
        """Store the best model so far; return its name.

        Raises
        ------
        UnetError
            The store cannot be written, or the name was taken meanwhile; the model is still there.
        """
        if self.tuning is None:
            raise ModelError("Nothing was trained yet; press Start first.")
        self.tuning.save(self.request.name)
        self.discard()
        return self.request.name

    def discard(self) -> None:
        """Forget the training; its log and curve stay."""
        forget_training(self.folder)
        self.release()
        self.tuning = None

    def release(self) -> None:
        """Let others train under this name."""
        if self._lock is not None:
            self._lock.release()

    def _model(self) -> Model:
        """Load the model, put another head on it, or build a new one."""
        from napari_unet.nn.inference.model import load_model
        from napari_unet.nn.training.head_transfer import fresh_model, fresh_spec, transfer_head

        request, network = self.request, self.request.network
        model = load_model(request.base, request.device)
        if not network.scratch:
            return model if network.classes is None else transfer_head(model, network.classes)
        spec = model.spec
        ndim = network.ndim or spec.ndim
        classes = network.classes or (spec.classes if spec.head == "semantic" else None)
        sizes = [stack.voxel_size_um for stack in self.opened if "Z" in stack.axes]
        size = sizes[0] if sizes and ndim == 3 else None
        fresh = fresh_spec(
            ndim, spec.in_channels, classes, network.depth, network.width or WIDTH, size
        )
        return fresh_model(fresh, request.name, request.device, request.settings.seed)

    def _corrections(self) -> Generator[Progress, None, list[Correction]]:
        from napari_unet.core.annotations.training_set import list_corrections

        found = []
        for correction in list_corrections(self.request.base):
            yield Progress(0, 0, "reading the corrections")
            if correction.frames:
                found.append(correction)
        return found

    def _samples(
        self, model: Model, corrections: list[Correction]
    ) -> Generator[Progress, None, Samples]:
        from napari_unet.core.annotations.training_set import to_samples
        from napari_unet.core.instances.heads import get_head

        spec = model.spec
        work = to_samples(
            corrections,
            get_head(spec),
            ndim=spec.ndim,
            channels=spec.in_channels,
            touched=self.request.touched,
            as_classes=self.request.network.classes is not None,
            opened=self.opened,
        )
        steps = map_steps(work, lambda step: replace(step, what="corrected images read"))
        samples, self.remarks = yield from steps
        return samples


def taken_names() -> set[str]:
    """Return the names that a new model cannot have: those of models and unfinished trainings."""
    places = training_folder("").glob(f"*/{CHECKPOINT}")
    return {entry.name for entry in list_models()} | {path.parent.name for path in places}
