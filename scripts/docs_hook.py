"""What mkdocs does besides: pages from outside `docs` become part of the site.

The figures lie in `benchmarks`, beside what measures them, and the pages for developers at the top
of the repository. Links are written as they hold in the repository; here they become those of the
site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").glob("*.md")),
)
"""Pages that are taken into the site, by their paths in the repository."""
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[)#\s])")
"""The path of a link or picture to something in the repository."""


def path_in_site(path: str) -> str:
    """Return where a file of the repository lies in the site.

    Raises
    ------
    ValueError
        The site does not have it.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    if path in OUTSIDE:
        return path
    raise ValueError(f"{path} is no part of the site: link to a page of docs or of {OUTSIDE}.")


def site_links(markdown: str, source: str) -> str:
    """Return a page whose links hold in the site instead of the repository.

    Parameters
    ----------
    source
        The page's path in the repository.
    """
    folder, here = posixpath.dirname(source), posixpath.dirname(path_in_site(source))

    def in_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link["path"]))
        return posixpath.relpath(path_in_site(target), here or ".")

    return LINK.sub(in_site, markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside (called by mkdocs)."""
    from mkdocs.structure.files import File

    for page in OUTSIDE:
        files.append(File.generated(config, page, abs_src_path=str(ROOT / page)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make the links of a page those of the site (called by mkdocs)."""
    source = page.file.src_uri
    return site_links(markdown, source if source in OUTSIDE else f"docs/{source}")
