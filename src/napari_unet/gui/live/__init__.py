"""Learning while the user works: from scribbles at once, from corrections in the background.

activity      whether the computer is free for it: the user rests, no battery
footer        what it says, and its buttons, below all steps
provisional   a layer that fades in, of what nobody has decided on yet
scribbles     the section that segments what is in view by scribbles
view          what is in view of the labels that are corrected
work          what the background learns, and what would change in view
section       the section with the switch: when to learn, Pause, Keep, Discard
"""
