"""The tutorials do what they say: their commands and code run, as they stand, in a clean home.

A block behind the comment `<!-- run -->` is run. One behind `<!-- run: long -->` takes minutes: it
is run, after those before it, where NAPARI_UNET_LONG_TUTORIALS is set. The blocks of a page share a
folder, and what its Python names.
"""

from __future__ import annotations

import os
import re
import shlex
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from napari_unet.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^<!-- run(: long)? -->\n\n?```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A piece of a page that is run."""

    language: str
    text: str
    is_long: bool


def blocks_of(page: Path) -> list[Block]:
    """The marked blocks of a page, in their order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text, bool(long)) for long, language, text in found]


def run(blocks: list[Block]) -> None:
    """Run blocks one after the other, as a reader does who copies them."""
    names: dict = {"__name__": "tutorial"}
    for block in blocks:
        if block.language == "python":
            exec(compile(block.text, "tutorial", "exec"), names)
            continue
        assert block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                assert words[0] == "napari-unet", line
                assert main(words[1:]) == 0, line


RUN = {page.relative_to(ROOT).as_posix(): blocks for page in PAGES if (blocks := blocks_of(page))}
QUICK = {page: list(takewhile(lambda block: not block.is_long, RUN[page])) for page in RUN}
LONG = [page for page in RUN if QUICK[page] != RUN[page]]


@pytest.mark.parametrize("page", [page for page, blocks in QUICK.items() if blocks])
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(QUICK[page])


@pytest.mark.slow
@pytest.mark.skipif("NAPARI_UNET_LONG_TUTORIALS" not in os.environ, reason="takes minutes")
@pytest.mark.parametrize("page", LONG)
def test_long_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(RUN[page])


def test_every_mark_is_understood():
    """A mark that stands too far from its block would run nothing."""
    for page in PAGES:
        marks = page.read_text(encoding="utf-8").count("<!-- run")
        assert marks == len(blocks_of(page)), page
