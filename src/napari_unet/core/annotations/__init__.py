"""The journal of corrections, and the training set that is read from it.

append_log      record files that survive a crash at any byte
edits           what one record says: pixels that changed, regions that were marked
header          the header of a journal and the initial labels; where journals lie
edit_history    the edits and marks of a journal: which are in force, and where they lie
journal_reader  a journal read through: the labels as they are now, undo and redo
journal         a journal to add to
image_source    the image that a journal belongs to; snapshots of images that lie in no file
event_maps      what the edits and marks of a plane say of its pixels and objects
known_around    how far the background around an edited object is known
annotation_mask what a frame teaches: which pixels are known, and what they are
plane_mask      the annotation mask of a plane, worked out window by window
mask            the annotation masks of planes and volumes
patches         windows around what is known, to train on
corrections     a model's corrections over all images, a row each; listed and withdrawn
training_set    the samples that are made of them
export          corrections as thumbnails and as pairs of TIFF files
"""
