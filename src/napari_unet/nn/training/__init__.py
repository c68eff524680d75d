"""Behind `nn.train` and `nn.finetune`: crops in torch, recipe, checkpoints, validation, card."""
