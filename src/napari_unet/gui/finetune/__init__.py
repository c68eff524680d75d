"""The Fine-tune panel: corrections in, a better model out.

panel             the panel, and its Fine-tune section: form, buttons, progress, curve
form              which model, under which name, for how long
run               one fine-tuning: from the journals to a tuned model, its progress and curve
review            after it: is it better, what changed in view, Keep or Discard
changes           the old and the tuned model on what is in view, and the layer that shows it
versions          the models before and after, and the scores of the rounds
uncertain_places  where to look next: the places at which the model is least certain
"""
