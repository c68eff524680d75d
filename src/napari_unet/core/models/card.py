"""The model card `model.json`: everything about a model but its weights."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from napari_unet.core.errors import ModelError
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.models.card_entries import check_entries
from napari_unet.core.settings.model_spec import ModelSpec

SCHEMA = 1
"""Version of `model.json` that this version of the package writes."""


@dataclass(frozen=True)
class ModelCard:
    """The model card. Its fields are the keys of `model.json`.

    Attributes
    ----------
    name
        The user's name for it; for a model in the store also its folder's name.
    spec
        Spec of the network.
    normalisation
        Percentiles of a frame that are mapped to 0 and 1: ``{"low": 1.0, "high": 99.8}``.
    decode
        Defaults for turning maps into objects: ``threshold``, ``merge``, ``min_size``.
    training
        Training data and settings: hash of the data, image and object counts, quantiles of the
        objects' diameter (px), image statistics.
    metrics
        Scores, by the data that they were measured on.
    click
        Of the click head, if there is one: ``spec``, ``training`` and ``metrics``; the same under
        ``refiner``, if it has one.
    licence
        Licence of the weights.
    parent
        `hash` of the model that this one was tuned from.
    hash
        SHA-256 of `model.safetensors`, in hexadecimal; set when the model is written.
    replay
        SHA-256 of `replay.npz`, the rehearsal set, in hexadecimal; empty without one.
    schema
        Version of `model.json`.
    """

    name: str
    spec: ModelSpec
    normalisation: dict[str, float] = field(default_factory=lambda: {"low": 1.0, "high": 99.8})
    decode: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    click: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    parent: str | None = None
    hash: str = ""
    replay: str = ""
    schema: int = SCHEMA

    @property
    def identity(self) -> dict[str, Any]:
        """What a result's provenance says of the model: name, hash, and axes of its objects."""
        axes = "ZYX"[-self.spec.ndim :]
        return {"model": self.name, "model_hash": self.hash, OBJECT_AXES: axes}

    @property
    def licence_of_tuned(self) -> str:
        """Licence of a model that is tuned from this one.

        What stands behind the licence's name, in parentheses, is of this model's training data and
        not of the images that another one is tuned on.
        """
        name = re.fullmatch(r"([\w.+-]+) \(.*\)", self.licence)
        if self.parent or not name:
            return self.licence
        return f"{name[1]} (weights of {self.name}, which it was tuned from)"

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain JSON values; NaN and infinity become null."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        plain = _plain({**values, "spec": self.spec.to_json()})
        return {"schema": plain.pop("schema"), **plain}

    @classmethod
    def from_json(cls, values: Any) -> ModelCard:
        """Build a card from the values of `to_json`, of this schema or an older one.

        Raises
        ------
        ModelError
            The schema is newer than this package, or an entry is unknown, missing, of a wrong type
            or outside its range.
        """
        values = dict(upgrade_card(values))
        known = {item.name: item for item in fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise ModelError(f"The model card has unknown entries: {', '.join(unknown)}.")
        required = {"name", "spec", "hash"}
        if missing := sorted(required - set(values)):
            raise ModelError(f"The model card lacks the entries: {', '.join(missing)}.")
        check_entries(values)
        return cls(**{**values, "spec": ModelSpec.from_json(values["spec"])})

    def to_text(self) -> str:
        """Return the card as the text of `model.json`."""
        return json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes) -> ModelCard:
        """Build a card from the text of `model.json`; raises ModelError if it cannot be used."""
        try:
            values = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"The model card is not valid JSON ({error}).") from error
        return cls.from_json(values)

    def replace(self, **changes: Any) -> ModelCard:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def upgrade_card(values: Any) -> dict[str, Any]:
    """Upgrade the values of a card of any older schema to the present one.

    Raises
    ------
    ModelError
        The values are no card, or their schema is newer than this package knows.
    """
    if not isinstance(values, dict):
        raise ModelError("The model card holds no entries; is this a model of napari-unet?")
    schema = values.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ModelError(f"The model card's schema is {schema!r}; is this a model of napari-unet?")
    if schema > SCHEMA:
        raise ModelError(
            f"The model card has schema {schema}, this version of napari-unet reads up to "
            f"{SCHEMA}; update napari-unet."
        )
    return values  # schema 1 is the first: there is nothing to upgrade yet


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
