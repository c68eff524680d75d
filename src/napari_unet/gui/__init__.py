"""The window: a napari panel over core, with torch only in the threads of jobs.

panel          the one panel: the inputs at the top, the steps below
open_panel     what the manifest names: each opens the one panel, at a step
shared_inputs  what all steps work on: image, axes, channel, model
segment/       the Segment step: run a model and watch the labels grow, in memory or in blocks
click/         the Click step: objects by clicks, boxes and edits
correct/       the Correct step: recording what is corrected by hand, what the model may learn from
finetune/      the Fine-tune step: train, review what changed, keep or discard
live/          scribbles that segment at once; learning in the background while the user corrects
measure/       the Measure step: a table of objects, linked to the picture
batch/         the Batch step: many files, with the state of each
models/        the Models step: the store, its cards, import and export
evaluate       the Evaluate section: labels against truth
how_made       the section "How was this made?": in words, for a paper, made again
track          the section "Link through time": objects from frame to frame
layers/        between napari's layers and stacks, labels and metadata
jobs/          long work beside the window: jobs, device queues, progress
widgets/       widgets that know nothing of segmentation
open_files     images with their labels from the menu and the terminal
samples        the sample images of the menu, and the demo
mask_labels    labels that look like masks: their pieces are offered as objects
model_events   tells all panels that a model was stored, removed or chosen
errors         shows an error in a panel, as a notification and in the log
remembered     what the panels remember between sessions
"""
