"""Widgets that know nothing of segmentation: folds, forms, plots, buttons, lines of text."""
