"""The Fine-tune step: corrections in, a better model out.

panel          the step: form, buttons, progress, curve
form           under which name the model is tuned, for how long
run            one fine-tuning: from the journals to a tuned model, its progress and curve
review         after it: is it better, what changed in view, Keep or Discard
changes        the old and the tuned model on what is in view, and the layer that shows it
other_images   the strip of other images and files, those first in which most changes
image_changes  the old and the new model on a part of another image
versions       the models before and after, and the scores of the rounds
"""
