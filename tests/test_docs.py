"""The documentation: what the strict build checks, without mkdocs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import posixpath
import re
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
import yaml

import napari_unet

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PICTURES = (".png", ".webp", ".gif", ".jpg", ".svg")


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = load_script("docs_hook")
PAGES = [path.relative_to(ROOT).as_posix() for path in sorted(DOCS.rglob("*.md"))]
ALL_PAGES = [*PAGES, *HOOK.OUTSIDE]
LINK = re.compile(r"\]\((?P<target>[^)\s]+)")


@functools.cache
def text_of(page):
    """A page without its code blocks, where brackets mean something else."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


@functools.cache
def anchors(page):
    """What can be linked to on a page, made from its headings as mkdocs makes them."""
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text_of(page), flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = sum(other == slug or other.startswith(f"{slug}_") for other in found)
        found.add(f"{slug}_{number}" if number else slug)
    return found


def navigation():
    """The pages that the navigation lists, by their paths in the site."""
    pages = []

    def collect(entry):
        for value in entry.values() if isinstance(entry, dict) else entry:
            collect(value) if isinstance(value, (dict, list)) else pages.append(value)

    collect(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    return pages


class TestLinks:
    @pytest.mark.parametrize("page", [*ALL_PAGES, "README.md"])
    def test_every_link_picture_and_anchor_is_there(self, page):
        broken = []
        for link in LINK.finditer(text_of(page)):
            path, _, anchor = link["target"].partition("#")
            if ":" in path:
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
            target = target if path else page
            if not (ROOT / target).is_file() or (
                anchor and target.endswith(".md") and anchor not in anchors(target)
            ):
                broken.append(link["target"])
        assert broken == []

    @pytest.mark.parametrize("page", ALL_PAGES)
    def test_every_link_leads_to_a_part_of_the_site(self, page):
        HOOK.site_links(text_of(page), page)

    def test_links_become_those_of_the_site(self):
        text = "[a](../../benchmarks/clicks.md#x) [b](../faq.md) [c](https://x.org/a) [d](#here)"
        expected = "[a](../benchmarks/clicks.md#x) [b](../faq.md) [c](https://x.org/a) [d](#here)"
        assert HOOK.site_links(text, "docs/how/sizes.md") == expected
        assert HOOK.site_links("[a](docs/faq.md) [b](README.md)", "CONTRIBUTING.md") == (
            "[a](faq.md) [b](index.md)"
        )
        with pytest.raises(ValueError, match="no part of the site"):
            HOOK.site_links("[a](../src/x.py)", "docs/faq.md")

    def test_a_broken_anchor_would_be_seen(self):
        assert "what-must-stay" in anchors("CONTRIBUTING.md")
        assert "how-to-add" in anchors("CONTRIBUTING.md")


STEPS_OF_USERS = [page for page in PAGES if page.startswith(("docs/tutorials/", "docs/start/"))]
STEPS_OF_USERS += ["docs/faq.md", "docs/models.md"]
EMPHASISED = re.compile(r"\*\*(?P<bold>[^*]+)\*\*|(?<![*\w])\*(?P<italic>[^*\n]+)\*(?![*\w])")
PLAIN_EMPHASIS = {
    *("ap50", "recall", "f1", "dice", "every", "card", "size", "what a pixel is", "scale"),
    *("saved", "not measurable", "renamed", "deleted"),
    *("a 2d model", "a 3d model", "learning while you correct", "not", "torchscript is a program"),
}
"""Words that stand out on those pages and are no names of the window's."""
OF_OTHERS = {
    *("file", "plugins", "open sample", "io utilities", "install/uninstall plugins", "install"),
    *("metadata", "u-net (napari-unet)", "c", "y", "k", "enter", "esc", "ctrl+z", "ctrl+shift+z"),
    *("ctrl-click",),
}
"""Names of napari's menus and buttons, and keys."""


def plain_name(text):
    """A name without marks, arrows, the key behind it, and the dots of what opens a dialog."""
    text = re.sub(r"<[^>]+>|\s*\([A-Za-z]+\)$", "", " ".join(text.split()))
    return text.strip("▸▾ ").rstrip(" .…:").casefold()


@functools.cache
def names_in_window():
    """All that the window says: when it is opened, and all texts in its code."""
    found = set(OF_OTHERS)

    def collect(entry):
        if isinstance(entry, str):
            found.add(plain_name(entry))
        elif isinstance(entry, dict):
            found.update(map(plain_name, entry))
            collect(list(entry.values()))
        else:
            for part in entry if isinstance(entry, list) else ():
                collect(part)

    collect(json.loads((ROOT / "tests/fixtures/window_texts.json").read_text(encoding="utf-8")))
    collect(yaml.safe_load((ROOT / "napari.yaml").read_text(encoding="utf-8")))
    for file in (ROOT / "src/napari_unet/gui").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant):
                collect(node.value)
    return found


def unknown_names(text):
    """What stands out in a text and is neither a name in the window nor plain emphasis."""
    prose = re.sub(r"`[^`]*`", "", text)
    names = [match["bold"] or match["italic"] for match in EMPHASISED.finditer(prose)]
    parts = [plain_name(part) for name in names for part in name.split(" > ")]
    return [part for part in parts if part not in names_in_window() | PLAIN_EMPHASIS]


class TestNamesInTheWindow:
    @pytest.mark.parametrize("page", STEPS_OF_USERS)
    def test_what_a_page_tells_to_press_is_there(self, page):
        assert unknown_names(text_of(page)) == []

    def test_a_name_that_is_gone_would_be_seen(self):
        text = "Press **Run**, *then* **Segment > Run it all**; **I have checked this\nslice** (K)."
        assert unknown_names(text) == ["then", "run it all"]

    def test_all_exceptions_are_needed(self):
        said = " ".join(map(text_of, STEPS_OF_USERS)).casefold()
        assert [name for name in PLAIN_EMPHASIS if f"*{name}" not in said] == []


class TestNavigation:
    def test_every_page_is_listed_once(self):
        assert sorted(navigation()) == sorted(HOOK.path_in_site(page) for page in ALL_PAGES)

    def test_every_picture_is_shown_somewhere(self):
        shown = {
            posixpath.normpath(posixpath.join(posixpath.dirname(page), link["target"]))
            for page in [*ALL_PAGES, "README.md"]
            for link in LINK.finditer(text_of(page))
        }
        files = [path for path in DOCS.rglob("*") if path.suffix in PICTURES]
        assert {path.relative_to(ROOT).as_posix() for path in files} <= shown
        assert sum(path.stat().st_size for path in files) < 4e6


class TestReference:
    def test_every_public_name_has_its_entry(self):
        text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
        names = re.findall(r"^::: napari_unet\.(\w+)$", text, flags=re.MULTILINE)
        assert sorted(names) == sorted(set(napari_unet.__all__) - {"__version__"})

    def test_pages_that_are_made_from_the_code_are_up_to_date(self):
        made = load_script("reference_pages").make_pages()
        folder = DOCS / "reference"
        old = [name for name, text in made.items() if (folder / name).read_text("utf-8") != text]
        assert old == [], "run: python scripts/reference_pages.py"

    @pytest.mark.parametrize("fixture", ["model_files", "training_files", "journal_files"])
    def test_every_file_of_the_users_folder_is_described(self, fixture):
        text = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
        files = json.loads((ROOT / "tests" / "fixtures" / f"{fixture}.json").read_text())["home"]
        for file in map(PurePosixPath, files):
            assert f"{file.parts[0]}/" in text
            assert file.name in text or f"….{file.name.rpartition('.')[2]}" in text
