"""The Segment panel: objects appear tile by tile as a Labels layer.

panel      the panel: form, buttons, progress, remarks; how often growing labels are drawn
form       what to segment, with which model, how; the settings that other panels share with it
run        one run: its progress, and the layer that it fills and draws while it works
block_run  runs over stacks larger than the memory, block by block to the disk
"""
