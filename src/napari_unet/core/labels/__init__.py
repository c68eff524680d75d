"""Label images as people have them: read, judged, and brought together with their images.

label_file     a file of labels of any kind as an array of objects' ids
encodings      how files hold labels: palettes, colours, compression that changes values
lazy_labels    labels that are read by slices
pairing        which label file belongs to which image: names, patterns, layouts of tools
outlines       objects as outlines and back, exactly
foreign        label files of other programs that are no images: which, and the labels in them
imagej_rois    ROIs of ImageJ and Fiji
geojson        GeoJSON, as QuPath reads and writes it
coco           COCO JSON
json_file      JSON files, read up to a size
cellpose_seg   the _seg.npy of Cellpose, read without running what it holds
label_export   labels written for other programs
object_check   whether the values of labels are objects at all: masks, images, interpolated labels
"""
