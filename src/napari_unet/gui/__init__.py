"""The window: napari panels over core, with torch only in the threads of jobs.

segment/      the Segment panel: run a model and watch the labels grow, in memory or in blocks
click/        the Click panel: objects by clicks, boxes and edits
correct/      recording what is corrected by hand, and what the model may learn from
finetune/     the Fine-tune panel: train, review what changed, keep or discard
measure/      the Measure panel: a table of objects, linked to the picture
batch/        the Batch panel: many files, with the state of each
evaluate      the Evaluate section: labels against truth
track         the section "Link through time": objects from frame to frame
layers/       between napari's layers and stacks, labels and metadata
jobs/         long work beside the window: jobs, device queues, progress
widgets/      widgets that know nothing of segmentation
open_files    images with their labels from the menu and the terminal; the samples and the demo
model_events  tells all panels that a model was stored, removed or chosen
errors        shows an error in a panel, as a notification and in the log
remembered    what the panels remember between sessions
"""
