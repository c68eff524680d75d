"""Between napari's layers and what core works with: stacks, labels, provenance.

convert         from an image layer to a Stack: axes, voxel size, place in the world
file_axes       the file of a layer, and what a TIFF says of its axes and channels
image_settings  what belongs to one image: reading of its axes, channel, size of objects
label_geometry  how labels lie on their image: order of axes, shape, transform
result_info     what is known of labels (image, model, runs); results are opened and sealed
edits           whether labels were edited since they were made, without a pause of the window
overlay_layer   layers that show something and hold no objects: their kinds, colours, legends
combos          the layers that combo boxes offer
navigation      the image worked on, the visible region, the object under a click; going to a place
live_labels     labels while a run writes into them, and drawing one part of a layer
key_bindings    keys bound in a window or on a layer, and given back
"""
