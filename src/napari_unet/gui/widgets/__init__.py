"""Widgets that know nothing of segmentation.

panel           the dock and the scrolling of a panel, collapsible sections, wrapped text, layouts
question_box    a question in the panel, with its two answers
plots           a plot of a few lines, and a histogram
settings_form   forms made from the fields of a settings class
"""
