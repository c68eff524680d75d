"""Reading images and writing results.

stack                 Stack: an image that is read window by window; its channels; open_stack
readers               which reader opens which kind of file
tiff                  TIFF files: which image of a file, and what its values stand for
tiff_pages            their pixels, mapped or decoded
tiff_checks           whether they are whole and can be what they say
tiff_metadata         voxel sizes and names of channels, as many programs write them
ome_xml               OME-XML in TIFF files: what it says, files of a set, claims that are checked
photos                PNG, JPEG, GIF, BMP, WebP, JPEG 2000
array_files           arrays of numpy (.npy, .npz)
hdf5_files            datasets of HDF5 files
vendor_files          files of microscopes, by the extra ``formats``
reader_process        files whose libraries may hang or crash, read in a process of their own
reader_process_main   what runs in that process
czi_directory         what a CZI file claims, checked before a library believes it
ome_zarr              Zarr and OME-Zarr, in folders, archives and at addresses
blosc_check           chunks of Blosc, held against their length
zarr_groups           the images of a Zarr group and the labels of an image
remote                bounds on what servers may send, and on how long they may take
time_limit            how long a file may be read for
picture_headers       how large an encoded picture says it is, read before it is decoded
size_claims           what a file claims to hold, checked before memory is allocated
lazy_arrays           base of lazy arrays, cache of chunks, reads with several tries
array_views           lazy parts, flips and colours of arrays
axes                  letters of axes: defaults, checks, what objects are matched in
coordinate_transform  world coordinates of an image, units
files                 paths, kinds of image files, matching by name, atomic writing
label_reader          label files read whole
label_writer          label files of any kind, written whole or not at all
label_formats         what a label file of each kind holds
ome_zarr_labels       OME-Zarr label images with their pyramid and metadata, written part by part
provenance            which model, data and settings a result was made with
methods_text          how a result was made, in words and for a paper
sample_images         the package's sample images, and synthetic ones
"""
