"""Behind `nn.session`: the click head's windows, features, answers, and its training."""
