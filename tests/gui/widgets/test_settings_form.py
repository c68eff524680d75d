from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from napari_unet.core.settings.fields import setting
from napari_unet.core.settings.tasks import PredictSettings, TrainSettings
from napari_unet.gui.widgets.settings_form import SettingsForm


@dataclass(frozen=True)
class Settings:
    share: float | None = setting(None, "a share", low=0.0, high=1.0)
    count: int | None = setting(None, "a count", unit="px", low=0)
    steps: int = setting(5, "steps", low=1, high=10)
    rate: float = setting(0.5, "a rate", low=0.0, high=2.0)
    kind: str = setting("a", "a kind", choices=("a", "b"))
    check: bool = setting(True, "check it")


def names(settings) -> dict[str, str]:
    return {item.name: "" for item in fields(settings)}


@pytest.fixture
def form(qapp):
    return SettingsForm(Settings, names(Settings))


@pytest.mark.parametrize("settings", [Settings, PredictSettings, TrainSettings])
def test_a_new_form_says_the_defaults(qapp, settings):
    form = SettingsForm(settings, names(settings))
    assert settings(**form.values()) == settings()


def test_every_number_that_the_form_allows_is_allowed(qapp):
    form = SettingsForm(PredictSettings, names(PredictSettings))
    for setting_widget in form.settings.values():
        box = setting_widget.widget
        for value in (getattr(box, "min", None), getattr(box, "max", None)):
            if value is not None:
                box.value = value
    values = form.values()
    PredictSettings(**values | {"diameter_um": None})
    PredictSettings(**values | {"diameter": None})


def test_values_come_back_with_their_types(form):
    values = {"share": 0.25, "count": 7, "steps": 3, "rate": 1.5, "kind": "b", "check": False}
    form.restore(values)
    assert form.values() == values
    assert [type(value) for value in form.values().values()] == [float, int, int, float, str, bool]


def test_auto(form):
    box = form.settings["count"].widget.native
    assert box.text() == "auto" and form.values()["count"] is None
    form.restore({"count": 0, "share": 0.0})
    assert form.values()["count"] == 0 and box.text() == "0 px"
    assert form.values()["share"] == 0.0
    box.lineEdit().setText(" px")
    box.lineEdit().textEdited.emit(" px")  # the user has emptied it
    assert form.values()["count"] is None and box.text() == "auto"


@pytest.mark.parametrize(
    "values",
    [
        {"share": 1.5, "count": -1, "steps": 0, "rate": "fast", "kind": "c", "check": 1},
        {"share": "x", "count": 1.5, "steps": 2.5, "rate": None, "kind": 3, "check": None},
        {"share": True, "count": [], "steps": None, "rate": float("nan"), "kind": None},
        {"unknown": 1},
        ["not", "a", "form"],
        None,
    ],
)
def test_what_is_not_allowed_any_more_is_passed_over(form, values):
    form.restore(values)
    assert Settings(**form.values()) == Settings()


def test_the_help_text_is_the_tooltip(form):
    assert form.settings["rate"].widget.tooltip == "A rate."
    assert [text for text, _ in form.rows()][:2] == ["share", "count"]
