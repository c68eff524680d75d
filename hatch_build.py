"""Bring the manifest from the top of the repository into the package.

npe2 finds it only inside the package. Wheels get a copy; an editable install gets a link, so that
edits of the manifest are live.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManifestHook(BuildHookInterface):
    """Add ``napari.yaml`` to the wheel, or link it into the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before each build; `version` is "standard" or "editable"."""
        manifest = Path(self.root, "napari.yaml")
        if version != "editable":
            build_data["force_include"][str(manifest)] = "napari_unet/napari.yaml"
            return
        link = Path(self.root, "src", "napari_unet", "napari.yaml")
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(manifest, link.parent))
        except OSError:  # Windows without the right to make links
            shutil.copyfile(manifest, link)
