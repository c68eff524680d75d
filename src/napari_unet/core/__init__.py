"""What needs neither torch nor napari nor Qt; see the packages.

settings       settings as plain data with defaults, bounds, units and help
io             reading images and writing results
labels         label images as people have them: read, judged, paired with images, converted
image          images as the network sees them
tiles          where tiles lie and what they read; the receptive field
instances      objects from the maps of a network, matched, merged, edited
volumes        volumes from a 2D network
blockwise      images that are larger than the memory, in blocks
evaluation     labels compared with the truth
regionprops    measurements of objects
tracking       objects linked through time
annotations    the journal of corrections, and training sets from it
alike          objects that resemble a few examples, and the same edit of all of them
review         what to look at next, and how good labels are by what was judged
training       samples, splits, crops and state of trainings
models         the store of models
server_access  computers with a GPU: addresses, and the tokens for them
prompts        clicks and boxes
progress       records of progress of long work, and how its generators are run
errors         errors that the user can solve
garbage        collections of garbage that leave out what there was before
text           numbers in sentences, rows in columns
"""
