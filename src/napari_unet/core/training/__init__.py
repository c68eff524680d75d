"""What trainings are made of: crops, replay, what is held out, the log, and the judgement."""
