"""Widgets that know nothing of segmentation.

dock            the panel in its dock, and the steps of the panel
panel           rows and columns, scrolling, collapsible sections, wrapped text
button_rows     buttons in as few rows as their texts need
question_box    a question in the panel, with its two answers
picture_strip   small pictures with captions, side by side
plots           a plot of a few lines, and a histogram
settings_form   forms made from the fields of a settings class
"""
