"""Corrections by hand: every edit of the labels is recorded, and marked as known or not.

section           the Correct step
edit_tracker      which layers of a window are recorded, and what image and model they belong to
layer_recording   the recording of one layer: edits into the journal, undo and redo out of it
write_queue       from a paint event to the disk, beside the window
mask_section      the annotation mask: what the model may learn from, and the layer that shows it
drawing           layers to draw boxes and scribbles on
correction_list   the model's training set: thumbnails, leaving out, export
restore_row       restoring earlier corrections of an image
alike             the same correction of all objects that are alike
alike_search      what is alike, also in other images and in files, found in a job
alike_scope       where is looked: the slice or stack, other open images, files of the batch
alike_edit        the same edit of all that is alike, in a job
file_undo         taking the edit of files back, and reading layers of them again
alike_images      the images that were searched: their list, and outlines over those that are open
alike_pictures    a strip of the other images, with what is marked in them
image_opener      brings the user to a place in an image, open or in a file
review            one object after the other, judged by single keys
quality_line      how good the labels are, by what a review has judged so far
review_plan       what there is to look at in a review, and what came of it
review_text       the keys of a review, and what it says
uncertain_places  where to look next: the places at which the model is least certain
"""
