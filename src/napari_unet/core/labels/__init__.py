"""Label images as people have them: read, judged, and brought together with their images.

label_file     a file of labels of any kind as an array of objects' ids
encodings      how files hold labels: palettes, colours, compression that changes values
lazy_labels    labels that are read by slices
object_check   whether the values of labels are objects at all: masks, images, interpolated labels
"""
