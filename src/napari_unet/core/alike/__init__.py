"""Fix one, fix all alike: objects that resemble a few examples, and the same edit of all of them.

descriptors     what an object looks like, in numbers
ranking         which objects are like the examples, and unlike the counterexamples
edit_kinds      what an edit was: an object deleted, accepted, split, merged or reshaped
group_edits     the same edit of many objects, as one change
take_over       what a model finds now, as one change
marked_picture  a small picture of the marked objects of an image
result_file     labels in a file, edited by way of a journal of their image
"""
