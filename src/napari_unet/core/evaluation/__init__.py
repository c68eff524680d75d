"""Labels compared with the truth, or with other labels.

metrics         Scores, evaluate: AP, F1, PQ, Dice, Rand error; the table of scores
comparison      files of labels and truth, frame by frame; which objects are hits
overlay         pictures of labels, and of hits, false and missed objects
picture_files   the picture of each pair of label files, which replaces nothing but older ones
label_diff      which objects were gained, lost or changed between two segmentations
small_picture   a place of an image, drawn small, with outlines
change_preview  a small picture of what another model changes in an image
"""
