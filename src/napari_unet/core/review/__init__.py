"""Review: what to look at next, what came of it, and how good the labels are by that.

order     objects in the order of what a correction is worth, with random ones among them
gain      what a correction of an object is expected to gain
outcome   what a correction says about the object that was there before
squares   squares of the image that are looked at as a whole
quality   AP50 and its interval, from objects and squares that were drawn at random
"""
