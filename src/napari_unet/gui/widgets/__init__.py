"""Widgets that know nothing of segmentation.

panel           the dock and the scrolling of a panel, collapsible sections, wrapped text, layouts
plots           a plot of a few lines, and a histogram
settings_form   forms made from the fields of a settings class
"""
