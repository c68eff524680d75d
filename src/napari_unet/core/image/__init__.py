"""Images as the network sees them.

normalise      intensities on the scale of networks, by percentiles of the frame
frames         windows of a plane or volume: normalised, rescaled, padded
foreign_frame  frames as networks of others want them: their own operations
diameters      diameters of objects, and the scale at which an image is read
domain_shift   whether an image is like those that a model was trained on
"""
