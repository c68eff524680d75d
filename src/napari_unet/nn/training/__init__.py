"""Training of networks, fine-tuning of models, and the training of the click head.

loop                 the training loop: draw a batch, take a step, validate, write the checkpoint
augment              random crops of the samples, warped and varied
checkpoint           the state of a training, and the file that it is resumed from
head_transfer        new models, and new heads on trained trunks
tuned_card           what the card of a tuned model says, and by which it is run in training
tuning_data          what a fine-tuning learns from, what is held out, what is rehearsed
finetune             a fine-tuning from its samples to the stored model
assumed_background   what lies near corrected objects is doubted where the model sees objects
live                 a tuning that takes in corrections as they come, a few steps at a time
held_out             what a training is scored on, and the comparison with the model before
calibrate            how a finished model decodes best, and statistics of what it was taught
cancellation         long work in a thread, cancelled within a layer of the network
click_samples        what the click head is trained on
click_scores         simulated clicks on objects, and how well a click head does
click_training       training and tuning of the click head
"""
