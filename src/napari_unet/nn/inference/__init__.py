"""From a stack and a model to maps and labels.

model                  a model: card, network, device; picks the number format
model_input            what of a stack a model is shown: channels, scale, normalisation
foreign_net            a network that others built, between our tiles and its axes and sizes
onnx_runtime           ONNX Runtime: what runs a network instead of torch
remote                 a server that runs a network instead of this computer
runner                 the network ready to run in a given number format; test-time augmentation
device_memory          how large tiles and batches may be; errors that say that memory is short
tile_runner            a frame in tiles, which are halved when the memory runs out
launched_tiles         tiles given to the network together, and their maps on the way back
plane_batches          small planes of one run through the network together
orthogonal             a 2D network on a volume's planes across z, y and x
map_source             the choice between the two; `predict`, the maps of a stack
decode                 raw maps to labels, tile by tile; the watershed on a GPU
segment                a stack to labels: `segment`, `segment_steps`
segment_window         a part of one frame to labels, in little memory
seam_check             a crop across the borders of tiles held against one piece
diameter_estimation    how large the objects are, and whether the image is like the training images
scale_trials           what is found in a part of an image at one scale, and how well it fits
second_size            whether an image shows objects of two sizes
size_regression        how large objects are by the look of a part, before any is outlined
taught_size            the size that a tuned model was taught, and what it says of a new image
embeddings             the trunk's features of an image, cached for clicks
object_features        objects described by their looks and by what the network sees in them
uncertainty            the regions that are most worth correcting
linking                the objects of a time-lapse linked: `link_frames`
"""
