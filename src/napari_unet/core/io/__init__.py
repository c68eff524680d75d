"""Reading images and writing results.

stack                 Stack: an image that is read window by window; its channels; open_stack
readers               image files by kind; PNG and JPEG
tiff                  TIFF files as lazy arrays
ome_zarr              Zarr and OME-Zarr, on the disk and at addresses
lazy_arrays           base of lazy arrays, cache of chunks, reads with several tries
axes                  letters of axes: defaults, checks, what objects are matched in
coordinate_transform  world coordinates of an image, units
files                 paths, kinds of image files, matching by name, atomic writing
label_writer          label files of any kind, written whole or not at all
ome_zarr_labels       OME-Zarr label images with their pyramid and metadata, written part by part
provenance            which model, data and settings a result was made with
methods_text          how a result was made, in words and for a paper
sample_images         the package's sample images, and synthetic ones
"""
