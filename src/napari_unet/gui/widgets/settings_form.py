"""Forms made from the fields of a settings class."""

from __future__ import annotations

import types
import typing
from dataclasses import Field, fields
from decimal import Decimal
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, Widget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qtpy.QtGui import QResizeEvent


AUTO = "auto"
_NO_LIMIT = 999_999_999  # Qt's number boxes need an upper bound


class SettingWidget:
    """One setting as a magicgui widget, which can also stand for None, shown as "auto".

    Parameters
    ----------
    item
        A field that was declared with `core.settings.fields.setting`; its default, bounds, choices,
        unit and help text make the widget.
    kind
        The field's type without None: bool, int, float or str.
    optional
        Whether None is allowed: a number box then shows "auto" below its lowest value, or empty.
    """

    def __init__(self, item: Field[Any], kind: type, optional: bool) -> None:
        self.name, self.kind, self.optional = item.name, kind, optional
        self._low, self._high = item.metadata["low"], item.metadata["high"]
        self._choices = item.metadata["choices"]
        self._auto: float | None = None
        tip = _tip(item)
        if kind is bool:
            self.widget: Any = CheckBox(name=item.name, tooltip=tip)
            self.widget.text = ""
        elif kind is str:
            self.widget = ComboBox(name=item.name, choices=self._choices, tooltip=tip)
        else:
            self.widget = self._number(item, tip)
        self.set(item.default)

    def get(self) -> Any:
        """Return the value; None for "auto"."""
        value = self.widget.value
        if self._auto is not None and value <= self._auto:
            return None
        return self.kind(value)

    def set(self, value: Any) -> bool:
        """Show a value if it is one that the setting allows; return whether it is."""
        if value is None and self.optional:
            self.widget.value = self._auto
        elif self._fits(value):
            self.widget.value = value
        else:
            return False
        return True

    def _fits(self, value: Any) -> bool:
        if self.kind in (bool, str):
            return isinstance(value, self.kind) and (not self._choices or value in self._choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        high = _NO_LIMIT if self._high is None else self._high
        return bool((self._low or 0) <= value <= high) and self.kind(value) == value

    def _number(self, item: Field[Any], tip: str) -> FloatSpinBox:
        """Make a number box.

        Whole numbers have a FloatSpinBox, too: magicgui's SpinBox cannot show a special text.
        """
        low, high = self._low or 0, _NO_LIMIT if self._high is None else self._high
        step = 0.05 if high <= 1 else 16 if low >= 16 else 1
        if self.optional:
            self._auto = 0.0 if 0 < low <= step else low - step
        widget = FloatSpinBox(name=item.name, tooltip=tip)
        box = typing.cast("Any", widget.native)
        default: Any = item.default
        given = [float(v) for v in (low, step, default) if v is not None]
        box.setDecimals(0 if self.kind is int else max(1, *map(_decimals, given)))
        widget.range = (low if self._auto is None else self._auto, high)
        widget.step = step
        if item.metadata["unit"]:
            box.setSuffix(f" {item.metadata['unit']}")
        if not self.optional:
            return widget
        box.setSpecialValueText(AUTO)

        def emptied(text: str) -> None:
            if not text.removesuffix(item.metadata["unit"]).strip():
                box.setValue(self._auto)
                box.selectAll()

        box.lineEdit().textEdited.connect(emptied)
        return widget


class SettingsForm:
    """Widgets for some fields of a settings class.

    Parameters
    ----------
    settings
        The settings class.
    names
        Its fields in the order of the form, each with its label ("": the field's name).
    """

    def __init__(self, settings: type, names: Mapping[str, str]) -> None:
        known = {item.name: item for item in fields(settings)}
        hints = typing.get_type_hints(settings)
        self.settings = {name: SettingWidget(known[name], *_kind(hints[name])) for name in names}
        self.labels = {name: label or name.replace("_", " ") for name, label in names.items()}

    def rows(self) -> list[tuple[str, Widget]]:
        """Return labels and widgets, for `rows_widget`."""
        return [(self.labels[name], setting.widget) for name, setting in self.settings.items()]

    def values(self) -> dict[str, Any]:
        """Return the values, as arguments of the settings class."""
        return {name: setting.get() for name, setting in self.settings.items()}

    def restore(self, values: Any) -> None:
        """Show remembered values; what is unknown or not allowed any more is ignored."""
        if isinstance(values, dict):
            for name, setting in self.settings.items():
                if name in values:
                    setting.set(values[name])


_SOFT_HYPHEN = "\u00ad"
LABEL_WIDTH, WIDE_LABEL, LABEL_SHARE = 66, 96, 0.34
"""Pixels for what stands before a box, in all rows of the panel, at least and at most, and its
share of the width in between; longer ones take two lines."""


_HYPHENATED = ("augmen-tation", "over-writing", "dimen-sions")
"""Words that are wider than a label where the panel is narrow: Qt would cut them."""


class _RowLabel(QLabel):
    """Stands before a box; its text takes several lines, and its longest words, too."""

    def __init__(self, text: str) -> None:
        for word in _HYPHENATED:
            text = text.replace(word.replace("-", ""), word.replace("-", _SOFT_HYPHEN))
        super().__init__(text)
        self.setWordWrap(True)

    def text(self) -> str:
        """Return the text as it was given."""
        return super().text().replace(_SOFT_HYPHEN, "")


class _Rows(QWidget):
    """Rows of a form; in a wide panel their labels are wider."""

    def __init__(self, label_width: int) -> None:
        super().__init__()
        self._label_width = label_width
        self.labels: list[QLabel] = []

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give the labels the width that the panel has for them."""
        super().resizeEvent(event)
        width = max(self._label_width, min(WIDE_LABEL, int(LABEL_SHARE * self.width())))
        for label in self.labels:
            label.setFixedWidth(width)


def rows_widget(
    rows: Iterable[tuple[str | None, Any]], label_width: int = LABEL_WIDTH, margin: int = 6
) -> QWidget:
    """Return a widget that shows magicgui widgets below each other, labels and boxes aligned.

    A widget whose label is None takes the whole width. There are `margin` pixels on both sides.
    """
    whole = _Rows(label_width)
    layout = QFormLayout(whole)
    layout.setContentsMargins(margin, 2, margin, 2)
    layout.setHorizontalSpacing(4)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    for text, widget in rows:
        if text is None:
            layout.addRow(widget.native)
            continue
        label = _RowLabel(text)
        label.setFixedWidth(label_width)
        label.setToolTip(widget.tooltip)
        layout.addRow(label, widget.native)
        whole.labels.append(label)
    return whole


def restore_choices(values: Mapping[str, Any], **boxes: Any) -> None:
    """Show remembered values in combo boxes, by name, where they can still be chosen."""
    for name, box in boxes.items():
        if values.get(name) in box.choices:
            box.value = values[name]


def _kind(hint: Any) -> tuple[type, bool]:
    """Return a hint's type without None, and whether None was there."""
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        return kinds[0], True
    return hint, False


def _decimals(value: float) -> int:
    """Return how many digits after the point a number needs."""
    return max(0, -int(Decimal(str(value)).normalize().as_tuple().exponent))


def _tip(item: Field[Any]) -> str:
    text: str = item.metadata["help"]
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
