"""Objects: from a network's maps to labels; finding, matching and editing objects of labels.

heads         labels to training targets, raw maps to foreground and relative distance, or classes
watershed     the catchment basins of one tile
tile_merger   the basins of all tiles, whatever the tiling, to objects
persistence   basins merged over shallow passes
matching      which object of one labelling is which of another
mask          one object: its mask, finding it by one of its pixels; all objects, numbered
label_edits   objects placed, removed, split and merged
"""
