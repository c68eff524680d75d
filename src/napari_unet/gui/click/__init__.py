"""Clicks to objects: the user clicks, the model's click head answers, the labels change.

panel    the Click panel: choices, buttons, status line
mode     click mode of a window, which the other files serve: begin, end, what is shown
actions  what the mouse, keys and buttons ask for
input    its mouse and keys
worker   runs the clicks in a session beside the window
overlay  draws the active object and the clicks
target   the labels that the objects go into
text     sentences, tooltips, the list of keys
"""
