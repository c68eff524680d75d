"""The Segment step: objects appear tile by tile as a Labels layer.

panel        the step: form, buttons, progress, remarks; how often growing labels are drawn
form         on what the model runs, and how; the settings that Batch shares with it
device_box   on which device it runs: this computer's, or a server
object_size  how large the objects are: what "auto" found, circles of that size, a line
size_click   one click on an object says how large they are
run          one run: its progress, and the layer that it fills and draws while it works
result_layer an earlier result that was not edited, or a new layer, for a run to fill
block_run    runs over stacks larger than the memory, block by block to the disk
"""
