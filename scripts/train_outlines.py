"""Train the refiner of a model's click head, which makes outlines sharper, by a robot's clicks.

    python scripts/train_outlines.py KINDS --model general --out RUN --answers 6000 --minutes 30

KINDS holds a folder for each kind that `train_general.py` trains on. A robot clicks on objects of
their training images; what the click head answers is kept in `RUN/answers` (a later run takes what
is there, and adds what is missing), and the refiner learns from it; one that the model has is
trained on. Trunk and click head stay as they are. RUN gets the checkpoint, `log.csv`, `curve.png`
and, at the end, the model folder `RUN/MODEL` with the averaged refiner that scored best on objects
of the validation images.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from outline_answers import Answer, Pictures, draw_answers, gather_answers
from torch import Tensor
from torch.nn import functional as F
from train_clicks import PER_IMAGE, best_scores, card_scores, read_thumbnail, with_head
from train_general import read_samples, report, rounded

from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.run_state import CHECKPOINT
from napari_unet.nn.inference.model import has_fast_bfloat16, load_model, save_model
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.click_scores import ClickValidator, make_trials
from napari_unet.nn.training.loop import run_steps, set_rate, take_step
from napari_unet.nn.unet.prompts import Prompts
from napari_unet.nn.unet.refiner import LIMIT, Refiner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.progress import TrainStep

CROPS = (64, 96, 160)
"""Edge lengths of what is learned from at once; answers of about the same size make a batch."""
DOUBTFUL = 1.5
"""Logits nearer to 0 than this are doubtful."""
RIM = 5
"""Width of what counts as the outline in the loss, in the refiner's pixels, ..."""
RIM_WEIGHT = 3.0
"""... and how much more it weighs than the rest."""


def by_size(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Sort answers by which of `CROPS` holds most of them."""
    sorted_: list[list[Answer]] = [[] for _ in CROPS]
    for answer in answers:
        edge = max(answer.maps.shape[1:])
        sorted_[sum(edge > 1.25 * crop for crop in CROPS[:-1])].append(answer)
    return sorted_


def draw_batch(
    sizes: Sequence[Sequence[Answer]], batch: int, rng: np.random.Generator
) -> tuple[Tensor, Prompts]:
    """Draw answers of about one size; of small ones more, as they take less time."""
    amounts = np.array([len(size) for size in sizes], float)
    which = int(rng.choice(len(sizes), p=amounts / amounts.sum()))
    crop = CROPS[which]
    chosen = [sizes[which][int(rng.integers(len(sizes[which])))] for _ in range(batch)]
    return stacked([varied(flipped(cropped(a, crop, rng), rng), rng) for a in chosen])


def cropped(answer: Answer, edge: int, rng: np.random.Generator) -> Answer:
    """Cut a piece around a doubtful or wrong pixel: there is most to learn."""
    logit, _, target = answer.maps.astype(np.float32)
    places = np.argwhere((np.abs(logit) < DOUBTFUL) | ((logit > 0) != (target > 0.5)))
    shape = np.array(logit.shape)
    middle = places[rng.integers(len(places))] if len(places) else shape // 2
    shift = rng.integers(-edge // 4, edge // 4 + 1, 2)
    y, x = np.clip(middle + shift - edge // 2, 0, np.maximum(0, shape - edge)).tolist()
    clicks = (np.asarray(at - [y, x], np.float32) for at in (answer.positive, answer.negative))
    return Answer(answer.maps[:, y : y + edge, x : x + edge].astype(np.float32), *clicks)


def flipped(answer: Answer, rng: np.random.Generator) -> Answer:
    """Flip and transpose a sample at random."""
    maps, clicks = answer.maps, [answer.positive.copy(), answer.negative.copy()]
    for axis in range(2):
        if rng.random() < 0.5:
            maps = np.flip(maps, axis + 1)
            for places in clicks:
                places[:, axis] = maps.shape[axis + 1] - 1 - places[:, axis]
    if rng.random() < 0.5:
        maps, clicks = maps.swapaxes(1, 2), [places[:, ::-1].copy() for places in clicks]
    return Answer(maps, *clicks)


def varied(answer: Answer, rng: np.random.Generator) -> Answer:
    """Vary contrast and brightness of the image, and how sure the click head was."""
    maps = answer.maps.copy()
    maps[0] *= float(np.exp(rng.normal(0, 0.15)))
    maps[1] = maps[1] * rng.uniform(0.7, 1.3) + rng.uniform(-0.2, 0.2)
    if rng.random() < 0.3:
        maps[1] += rng.normal(0, rng.uniform(0, 0.08), maps[1].shape)
    return replace(answer, maps=maps)


def stacked(answers: Sequence[Answer]) -> tuple[Tensor, Prompts]:
    """Put answers of different sizes on top of each other, (3, N, Y, X), filled up with nothing."""
    shape = np.max([answer.maps.shape[1:] for answer in answers], axis=0)
    maps = np.zeros((3, len(answers), *shape), np.float32)
    maps[0] = -LIMIT
    for number, answer in enumerate(answers):
        _, height, width = answer.maps.shape
        maps[:, number, :height, :width] = answer.maps
    whole = torch.from_numpy(maps)
    clicks = [a.positive for a in answers], [a.negative for a in answers]
    return whole, Prompts.from_clicks(*clicks, whole[0][:, None])


def outline_loss(logit: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return cross-entropy, which looks at the outline most, plus soft Dice loss; and both."""
    local = F.avg_pool2d(target[:, None], 2 * RIM + 1, 1, RIM, count_include_pad=False)[:, 0]
    weight = 1 + RIM_WEIGHT * 4 * local * (1 - local)
    entropy = (F.binary_cross_entropy_with_logits(logit, target, reduction="none") * weight).mean()
    probability = logit.sigmoid()
    both = (probability * target).sum((1, 2))
    size = (probability.square() + target.square()).sum((1, 2))
    dice = (1 - (2 * both + 1) / (size + 1)).mean()
    return entropy + dice, {"entropy": entropy, "dice": dice}


def learn(
    state: TrainState, settings: TrainConfig, sizes: Sequence[Sequence[Answer]]
) -> dict[str, float]:
    """Take one step."""
    refiner = cast("Refiner", state.net)
    rng = np.random.default_rng([settings.seed, state.step])
    set_rate(state, settings)
    maps, prompts = draw_batch(sizes, settings.batch, rng)
    device = next(refiner.parameters()).device
    logit, image, target = maps.to(device)
    refiner.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bfloat16(device)):
        refined = refiner(logit, image, prompts.to(device))
    loss, terms = outline_loss(refined, target)
    with torch.no_grad():
        before, _ = outline_loss(logit, target)
    take_step(state, loss, settings)
    scores = {"loss": loss, **terms, "unrefined": before}
    return {name: float(value.detach()) for name, value in scores.items()}


def main() -> None:
    """Train the refiner of a model, as the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="general")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=6000)
    parser.add_argument("--only-gather", action="store_true", help="do not train yet")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--steps", type=int, default=TrainConfig.steps)
    parser.add_argument("--validate-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--validate-on", type=int, default=4, metavar="IMAGES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    settings = TrainConfig(
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        learning_rate=2e-3,
        average=0.995,
        validate_every=args.validate_every,
    )
    torch.manual_seed(args.seed)
    model = load_model(args.model, args.device)
    head = model.click
    if head is None:
        raise SystemExit(f"--model: {args.model} has no click head; train one first.")
    head.refiner = head.refiner or Refiner().to(model.device)
    pictures = Pictures.of(args.data, model.spec.in_channels)
    answers = gather_answers(
        args.out / "answers",
        args.answers,
        lambda there: draw_answers(model, pictures, np.random.default_rng([args.seed, there])),
    )
    if args.only_gather:
        return
    sizes = by_size(answers)
    sys.stderr.write(f"answers by size: {[len(size) for size in sizes]}\n")
    validator = ClickValidator(
        [*make_trials(model, read_samples(args.data, "val", most=args.validate_on), PER_IMAGE)], 5
    )

    def validate(refiner: Any) -> dict[str, float]:
        return validator(head.with_refiner(refiner))

    state = TrainState.start(cast("Any", head.refiner), settings)
    if args.resume:
        load_checkpoint(state, args.out / CHECKPOINT)
    else:
        sys.stderr.write(f"without  {rounded(validator(head.with_refiner(None)))}\n")
    steps: Iterator[TrainStep] = run_steps(
        state,
        settings,
        lambda config: (learn(state, config, sizes), config),
        validate,
        checkpoint=args.out / CHECKPOINT,
        log=TrainLog(args.out),
    )
    report(steps, settings)
    refiner = cast("Refiner", cast("Any", state.best_net()))
    scores = card_scores(best_scores(state))
    training = {"steps": state.step, "seconds": round(state.seconds), "seed": settings.seed}
    click = {**model.card.click, "refiner": {"training": training, "metrics": scores}}
    trained = replace(
        with_head(model, head.with_refiner(refiner)), card=model.card.replace(click=click)
    )
    save_model(trained, args.out / model.name, thumbnail=read_thumbnail(args.model))
    sys.stderr.write(f"{json.dumps(click['refiner'], indent=2)}\n")


if __name__ == "__main__":
    main()
