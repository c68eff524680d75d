"""What is done at each build: the manifest comes into the package, the README becomes PyPI's page.

npe2 finds the manifest only inside the package. Wheels get a copy; an editable install gets a link,
so that edits of the manifest are live. PyPI has nothing but the README: pictures and links into the
repository would lead nowhere there.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Take the README without what PyPI cannot show."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Run before each build."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"!\[[^]]*\]\((?!https:)[^)]*\)\n+|<!--.*?-->\n", "", text)
        text = re.sub(r"\[([^]]*)\]\((?!https:)[^)]*\)", r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


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
