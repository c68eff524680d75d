"""What a model is on disk: its card, its folder, its archive, and who descends from whom."""
