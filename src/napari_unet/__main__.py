"""`python -m napari_unet` is the command line."""

import sys

from napari_unet.cli import main

if __name__ == "__main__":
    sys.exit(main())
