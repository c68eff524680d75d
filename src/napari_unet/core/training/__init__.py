"""What a training works with, without torch.

training_sample    a labelled image with its targets and known mask
samples            training and validation sets of them
known_pixels       targets and sizes of labels of which only a part is known
pairs              labelled images read from files
config             training settings with nothing left open
holdout            the split into training and validation
rehearsal          crops of earlier training sets, mixed in against forgetting
log                the table and curve of a training
run_state          unfinished trainings: folder, lock, what they were begun with
model_comparison   a tuned model against the one before, and the learning curve over rounds
"""
