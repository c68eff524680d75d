"""Networks and everything that runs them: may import torch and core, never napari or Qt."""
