"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet.core.settings.fields import check_settings, setting


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained."""

    minutes: float | None = setting(
        None,
        "stop after this time. Empty: after `epochs` or `steps`; fine-tuning without any of them "
        "takes 1 minute on a GPU, 3 on a processor",
        unit="min",
        low=0.01,
    )
    epochs: float | None = setting(
        None, "stop when all that is known was seen so many times. Empty: after `steps`", low=0.01
    )
    steps: int | None = setting(
        None,
        "training steps, and the length of the learning-rate cycle. Empty: 4000 from scratch",
        low=1,
    )
    validation: float = setting(
        0.2, "share of what is known that is held out, to judge the result by", low=0, high=0.5
    )
    replay: float = setting(
        0.5, "share of the crops that show what the model was trained on before", low=0, high=0.9
    )
    freeze: str = setting(
        "nothing",
        "what stays as it is when a model is tuned",
        choices=("nothing", "encoder", "all but the head"),
    )
    batch: int | None = setting(
        None, "crops a step. Empty: decided by device and dimensions", low=1, high=1024
    )
    crop: int | None = setting(
        None,
        "edge length of a training crop; volumes are cut as flat as the network pools them. Empty: "
        "192 in planes, 64 in volumes",
        unit="px",
        low=16,
        high=2048,
    )
    learning_rate: float | None = setting(
        None,
        "highest learning rate (AdamW). Empty: 0.002 from scratch, 0.0005 for tuning",
        low=1e-7,
        high=1.0,
    )
    weight_decay: float = setting(1e-3, "weight decay (AdamW)", low=0.0, high=1.0)
    warm_up: float = setting(0.05, "share of the steps in which the rate rises", low=0.0, high=0.9)
    average: float = setting(
        0.998, "decay of the weights' moving average, which is what is kept", low=0.0, high=0.99999
    )
    plain: float = setting(
        0.0, "share of the crops that are only turned by right angles and mirrored", low=0, high=1
    )
    diameter: float | None = setting(
        None,
        "images are zoomed until their objects have this diameter. Empty: taken at their own scale",
        unit="px",
        low=4.0,
        high=200.0,
    )
    freeze_norm: bool = setting(False, "keep the statistics of BatchNorm as they are")
    focal: float = setting(
        0.0, "focusing of the entropy on doubtful pixels (Lin et al. 2017); 0: none", low=0, high=10
    )
    precision: str = setting(
        "auto",
        "number format of the network's arithmetic; auto takes bfloat16 where that is faster",
        choices=("auto", "float32", "bfloat16"),
    )
    clip: float = setting(1.0, "largest norm of a step's gradient", low=1e-3)
    validate_every: int | None = setting(
        None, "steps between validations. Empty: 250 from scratch, else now and then", low=1
    )
    log_every: int = setting(25, "steps that a row of the log sums up", low=1)
    seed: int = setting(0, "seed of weights, sampling and augmentation", low=0)

    def __post_init__(self) -> None:
        check_settings(self)
