from __future__ import annotations

from napari_unet.gui.widgets.wrapped_label import WrappedLabel


def test_a_long_path_does_not_widen_the_panel(qtbot):
    label = WrappedLabel()
    qtbot.addWidget(label)
    assert label.isHidden()
    text = "Exported to /home/" + "a_long-name/" * 30 + "."
    label.setText(text)
    assert label.text() == text
    assert not label.isHidden()
    assert label.minimumWidth() == 180
    assert label.heightForWidth(200) > 3 * label.fontMetrics().height()
    label.clear()
    assert label.text() == "" and label.isHidden()
