"""From the journals of many images to a training set.

`known` says what a frame's corrections teach, `cuts` divides frames into parts with their image,
`listing` finds the journals of a model, and `training` and `export` make samples and files of them.
"""
