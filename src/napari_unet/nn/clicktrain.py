"""Training of the click head on a frozen trunk, by a robot that clicks and corrects."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.clicks import Click, ClickSet, first_click, next_click
from napari_unet.core.files import sweep_partials
from napari_unet.core.spec import InputError, TrainStep
from napari_unet.nn.checkpoint import TrainState, save_checkpoint
from napari_unet.nn.click import ClickHead, Prompts
from napari_unet.nn.clicker import pooled
from napari_unet.nn.clickviews import EDGE, ClickView, PictureSource, make_view
from napari_unet.nn.firstguess import FirstGuess
from napari_unet.nn.model import has_fast_bfloat16
from napari_unet.nn.train import rate_factor, share_done

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.recipe import Recipe
    from napari_unet.core.trainlog import TrainLog
    from napari_unet.nn.model import Model

POOL = 48
"""Views from which windows are cut."""
FIRST = 8
"""Views at the beginning."""
REPLACE = 2
"""Steps after which one more comes, and the oldest of a full pool goes."""
LEVELS = (0.55, 0.3, 0.15)
"""How often a step's windows show the trunk's pixels, 2 x 2 and 4 x 4 of them as one."""
FITS = (0.1, 1.1)
"""Objects are clicked on in windows in which they are this large, as a share of the window ..."""
LARGE = 0.3
"""... but so many may be larger: a head must see that an object goes on beyond its window."""
ROUNDS = (0.3, 0.2, 0.2, 0.15, 0.15)
"""How often the last of 1, 2, ... clicks is learned from."""
REDRAWN, DRAWN = 0.4, (-0.09, 0.07)
"""How often an outline is drawn anew, further in or out, by these shares of the object's size: by
one image's annotator outlines lie where the next one's do not, and it is later clicks that tell."""
GUESSED = 0.8
"""How often what is clicked on anew comes with the automatic object at that place, if any."""
BEGIN = {"click": 0.7, "object": 0.16, "box": 0.14}
"""How often an object is clicked on anew, was there in a wrong shape, or had a box drawn around."""

Validate = Callable[[ClickHead], dict[str, float]]


@dataclass
class Window:
    """One window of a view with one object in it, and what was clicked so far.

    Attributes
    ----------
    seen
        float32 (C, Y, X), in the head's pixels.
    target
        float32 (Y, X): the share of each pixel that belongs to the object.
    previous
        bool (Y, X): the mask so far.
    clicks
        The clicks so far.
    """

    seen: Tensor
    target: Tensor
    previous: np.ndarray
    clicks: ClickSet

    @property
    def truth(self) -> np.ndarray:
        """The object, bool (Y, X)."""
        return self.target.numpy() > 0.5


def train_clicks(
    state: TrainState,
    model: Model,
    sources: Sequence[PictureSource],
    settings: Recipe,
    *,
    validate: Validate | None = None,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a click head, yielding after every step.

    A training by steps that is killed, and goes on from its checkpoint, ends with the weights of
    one that was never interrupted: all that is random follows from the seed and the step.

    Parameters
    ----------
    state
        Of a `ClickHead`: a fresh `TrainState.start`, or one that `load_checkpoint` brought up to
        date.
    model
        Whose trunk gives the features; it is not changed.
    sources
        Of the pictures; each as often as the others.
    settings
        Budget, rates and seed; `crop` is the edge of a window in the head's pixels.
    validate, checkpoint, log
        As in `train`.

    Returns
    -------
    TrainState
        The state after the last step.
    """
    if checkpoint:
        sweep_partials(checkpoint)
    if log:
        log.begin(state.step)
    head = cast("ClickHead", state.net)
    guess = FirstGuess.of(model)
    views = ViewPool(model, sources, settings.seed, state.step)
    began = time.perf_counter() - state.seconds
    while share_done(state, settings) < 1:
        rng = np.random.default_rng([settings.seed, state.step])
        windows = draw_windows(views.turned(state.step), settings, rng, guess)
        losses = _learn(state, settings, head, windows, rng)
        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if due := state.step % settings.validate_every == 0 or share_done(state, settings) >= 1:
            averaged = cast("ClickHead", state.averaged_net())
            scores = validate(averaged) if validate else None
            state.keep_best(scores or {})
            state.history.append({"step": state.step, "loss": losses["loss"], **(scores or {})})
        if log:
            log.add(losses)
            if due or state.step % settings.log_every == 0:
                rate = float(state.optimizer.param_groups[0]["lr"])
                log.write(state.step, state.seconds, rate, scores)
            if due:
                log.draw()
        if due and checkpoint:
            save_checkpoint(state, checkpoint)
        done = share_done(state, settings)
        yield TrainStep(
            done=state.step,
            total=settings.steps if settings.minutes is None else math.ceil(state.step / done),
            what="training",
            loss=losses["loss"],
            learning_rate=float(state.optimizer.param_groups[0]["lr"]),
            seconds_left=state.seconds / done * (1 - min(done, 1.0)),
            validation=scores,
        )
    return state


class ViewPool:
    """The views of a training at a step, and at those after it."""

    def __init__(
        self, model: Model, sources: Sequence[PictureSource], seed: int, step: int
    ) -> None:
        self._model, self._sources, self._seed = model, sources, seed
        self._views: list[ClickView] = []
        for early in range(max(0, step - POOL * REPLACE) // REPLACE * REPLACE, step):
            self.turned(early)

    def turned(self, step: int) -> list[ClickView]:
        """Return the views for a step, some of them new; steps are asked for in their order."""
        if step % REPLACE:
            return self._views
        rng = np.random.default_rng([self._seed, step, 1])
        for _ in range(1 if step else FIRST):
            source = self._sources[int(rng.integers(len(self._sources)))]
            view = make_view(self._model, source, rng)
            if view.objects:
                self._views = [*self._views, view][-POOL:]
        if not self._views:
            raise InputError("The pictures show no objects; give images with labels.")
        return self._views


def draw_windows(
    views: Sequence[ClickView], settings: Recipe, rng: np.random.Generator, guess: FirstGuess
) -> list[Window]:
    """Cut windows of one zoom around objects that fit, with the clicks and masks to begin with."""
    factor = 2 ** int(rng.choice(len(LEVELS), p=LEVELS))
    edge = min(settings.crop * factor, EDGE)
    windows: list[Window] = []
    for attempt in range(20 * settings.batch):
        view = views[int(rng.integers(len(views)))]
        layer, label, box = view.objects[int(rng.integers(len(view.objects)))]
        size = max(s.stop - s.start for s in box) / edge
        most = math.inf if rng.random() < LARGE else FITS[1]
        if attempt < 10 * settings.batch and not FITS[0] < size < most:
            continue
        inside = _redrawn(view.layers[layer] == label, box, rng)
        window = _cut(view, inside, box, edge, factor, rng)
        windows.append(_begun(window, rng, guess))
        if len(windows) == settings.batch:
            break
    return windows


def _redrawn(inside: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Draw an object's outline as another annotator might, or leave it."""
    if rng.random() >= REDRAWN:
        return inside
    size = math.sqrt(np.count_nonzero(inside[box]))
    margin = math.ceil(DRAWN[1] * size) + 1
    around = tuple(slice(max(0, s.start - margin), s.stop + margin) for s in box)
    part = inside[around]
    depth = ndimage.distance_transform_edt(part)
    # Thin objects get thinner, but do not vanish.
    outwards = max(rng.uniform(*DRAWN) * size, -0.4 * float(depth.max()))
    signed = np.where(part, depth - 0.5, 0.5 - ndimage.distance_transform_edt(~part))
    drawn = inside.copy()
    drawn[around] = signed > -outwards
    return drawn


def _cut(
    view: ClickView,
    inside: np.ndarray,
    box: tuple[slice, slice],
    edge: int,
    factor: int,
    rng: np.random.Generator,
) -> Window:
    """Cut a window that shows an object, as it comes to lie by its first click, or by its mask."""
    by_click = rng.random() < 0.5
    at = np.array(first_click(inside[box], rng).pixel) + [s.start for s in box]
    middle = at if by_click else np.array([(s.start + s.stop) / 2 for s in box])
    starts = [
        int(np.clip(round(m + rng.normal(0, 2)) - edge // 2, 0, n - edge)) // factor * factor
        for m, n in zip(middle, inside.shape, strict=True)
    ]
    y, x = (slice(a, a + edge) for a in starts)
    seen = pooled(view.seen[None, :, y, x], factor)[0]
    target = pooled(torch.from_numpy(inside[y, x].astype(np.float32))[None, None], factor)[0, 0]
    return Window(seen, target, np.zeros(target.shape, bool), ClickSet())


def _begun(window: Window, rng: np.random.Generator, guess: FirstGuess) -> Window:
    """Give a window what a user begins with."""
    truth = window.truth
    if not truth.any():  # so small, or so thin, that no pixel is half full
        at = np.unravel_index(int(window.target.argmax()), truth.shape)
        window.clicks = ClickSet((Click(tuple(float(a) for a in at)),))
        return window
    begin = str(rng.choice(list(BEGIN), p=list(BEGIN.values())))
    if begin == "box":
        window.previous = _box(truth, rng)
        return window
    if begin == "object":
        window.previous = _deformed(truth, rng)
        if rng.random() < 0.5:  # from one plane to the next it is the middle that is clicked
            click = next_click(truth, window.previous, rng)
        else:
            click = first_click(truth)
    else:
        click = first_click(truth, rng)
        if rng.random() < GUESSED:
            window.previous = guess.at(window.seen, click.place)
    window.clicks = ClickSet((click,) if click else ())
    return window


def _box(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a box around an object as people do: nearly right."""
    found = np.zeros(truth.shape, bool)
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    sides = []
    for span in (rows, columns):
        slack = 0.05 * (span[-1] - span[0] + 1) + 0.7
        low, high = span[0] + rng.normal(0, slack), span[-1] + 1 + rng.normal(0, slack)
        sides.append(slice(max(0, round(low)), max(round(low) + 1, round(high), 1)))
    found[tuple(sides)] = True
    return found


def _deformed(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make an object wrong: shifted, larger or smaller, a part missing or too much."""
    size = math.sqrt(np.count_nonzero(truth))
    shift = np.round(rng.normal(0, 0.08 * size + 0.5, 2)).astype(int)
    wrong = ndimage.shift(truth, shift, order=0)
    depth = ndimage.distance_transform_edt(wrong) - ndimage.distance_transform_edt(~wrong)
    wrong = depth > rng.normal(0, 0.06 * size + 0.3)
    for _ in range(int(rng.integers(0, 3))):
        centre = np.array(_any_pixel(truth, rng)) + rng.normal(0, 0.3 * size, 2)
        y, x = np.ogrid[: truth.shape[0], : truth.shape[1]]
        disc = np.hypot(y - centre[0], x - centre[1]) < size * rng.uniform(0.1, 0.45)
        wrong = wrong | disc if rng.random() < 0.5 else wrong & ~disc
    return np.asarray(wrong)


def _any_pixel(truth: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    at = int(rng.choice(np.flatnonzero(truth)))
    return tuple(int(i) for i in np.unravel_index(at, truth.shape))


def _learn(
    state: TrainState,
    settings: Recipe,
    head: ClickHead,
    windows: list[Window],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Let the robot click for some rounds, then take one step on what the head says at last."""
    rate = rate_factor(share_done(state, settings), settings.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate
    device = next(head.parameters()).device
    fast = has_fast_bfloat16(device)
    seen = torch.stack([window.seen for window in windows]).to(device)
    target = torch.stack([window.target for window in windows]).to(device)
    for _ in range(int(rng.choice(len(ROUNDS), p=ROUNDS))):
        head.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
            masks = (_answer(head, seen, windows) > 0).cpu().numpy()
        for window, mask in zip(windows, masks, strict=True):
            window.previous = mask
            click = next_click(window.truth, mask, rng)
            window.clicks = window.clicks.added(click) if click else window.clicks
    head.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        logit = _answer(head, seen, windows)
    loss, terms = click_loss(logit, target)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(head.parameters(), settings.clip)
    state.optimizer.step()
    _follow(state, settings.average)
    return {"loss": float(loss.detach())} | {name: float(v.detach()) for name, v in terms.items()}


def _answer(head: ClickHead, seen: Tensor, windows: Sequence[Window]) -> Tensor:
    """Return the head's logits (N, Y, X) for the windows' clicks and masks."""
    masks = np.stack([window.previous for window in windows]).astype(np.float32)
    places = {
        sign: [window.clicks.places(positive=sign, ndim=2) for window in windows]
        for sign in (True, False)
    }
    previous = torch.from_numpy(masks)[:, None].to(seen.device)
    prompts = Prompts.of(places[True], places[False], previous)
    width = head.model.width + 1
    return head(seen[:, :width], seen[:, width:], prompts)  # type: ignore[no-any-return]


def click_loss(logit: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return entropy plus soft Dice loss of logits (N, Y, X), and the two by name."""
    entropy = F.binary_cross_entropy_with_logits(logit, target)
    probability = logit.sigmoid()
    both = (probability * target).sum((1, 2))
    size = probability.sum((1, 2)) + target.sum((1, 2))
    dice = (1 - (2 * both + 1) / (size + 1)).mean()
    return entropy + dice, {"entropy": entropy, "dice": dice}


def _follow(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the head's; young averages follow faster."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for name, value in state.net.state_dict().items():
        if value.dtype.is_floating_point:
            state.average[name].lerp_(value.detach(), 1 - decay)
        else:
            state.average[name].copy_(value)
