"""The window: napari layers, magicgui forms and the jobs behind them. Nothing here loads torch."""
