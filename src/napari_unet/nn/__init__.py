"""Networks and everything that runs them: may import torch and core, never napari or Qt.

unet           the networks: trunk, heads, losses
inference      models, tiles, maps, labels
interactive    clicks
training       training, fine-tuning, evaluation on held-out images
exchange       models for other programs, and from them
blockwise      runs in blocks, for stacks that do not fit into memory; clusters
remote         a network on another computer
serve          a network for other computers: `napari-unet serve`
bench          how fast this computer is
"""

import os

# torch reads this with its first tensor. Linux hands out memory page by page, 4 KiB each; with
# large pages for large tensors, prediction takes up to a fifth less time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
