"""The package as it is installed, and the arrows between its layers."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import npe2
import pytest

import napari_unet

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "napari_unet"
WINDOW = ("PyQt6", "magicgui", "napari", "qtpy", "superqt")


def modules(*folders: str) -> list[str]:
    """Every module of the given layers, by its dotted name."""
    files = [path for folder in folders for path in (SOURCE / folder).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__init__") for name in names)


def first_to_load(names: list[str], forbidden: tuple[str, ...]) -> str:
    """Import `names` one after the other in a new interpreter; name the first to load too much."""
    program = (
        "import importlib, json, sys\n"
        "names, forbidden = json.loads(sys.argv[1])\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "    loaded = [f for f in forbidden if f in sys.modules]\n"
        "    if loaded: sys.exit(f'{name} loads {loaded}')\n"
    )
    arguments = [sys.executable, "-c", program, json.dumps([names, forbidden])]
    run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return "" if run.returncode == 0 else run.stdout + run.stderr


class TestImports:
    def test_package_and_command_line_load_neither_torch_nor_a_window(self):
        names = ["napari_unet", *(f"napari_unet.{path.stem}" for path in SOURCE.glob("[!_]*.py"))]
        names += modules("cli")
        assert "napari_unet.cli" in names
        names.append("napari_unet.__main__")
        assert first_to_load(names, ("torch", "napari_unet.nn", "dask", *WINDOW)) == ""

    def test_help_loads_nothing_heavy(self):
        """`napari-unet --help` answers at once: beside numpy only what is small."""
        heavy = ("scipy", "skimage", "tifffile", "zarr", "safetensors", "imagecodecs", "matplotlib")
        assert first_to_load(["napari_unet.cli", "napari_unet.__main__"], heavy) == ""

    def test_core_loads_neither_torch_nor_a_window(self):
        assert first_to_load(modules("core"), ("torch", "napari_unet.nn", *WINDOW)) == ""

    def test_window_does_not_load_torch(self):
        assert modules("gui")
        assert first_to_load(modules("gui"), ("torch", "napari_unet.nn", "monai")) == ""

    def test_networks_load_no_window(self):
        assert first_to_load(modules("nn"), (*WINDOW, "monai")) == ""

    def test_a_culprit_is_named(self):
        assert "json.tool loads ['json']" in first_to_load(["json.tool"], ("json",))


class TestLayersInTheLinter:
    """ruff's per-folder settings catch an arrow that points the wrong way."""

    @pytest.mark.parametrize(
        ("file", "line", "rule"),
        [
            ("core/new.py", "import torch", "TID251"),
            ("core/new.py", "from torch.nn import functional", "TID251"),
            ("core/new.py", "def late():\n    import torch\n    return torch", "TID251"),
            ("core/new.py", "import napari", "TID251"),
            ("core/new.py", "from qtpy.QtWidgets import QWidget", "TID251"),
            ("core/new.py", "import magicgui", "TID251"),
            ("core/new.py", "from napari_unet.nn.unet.net import UNet", "TID251"),
            ("core/new.py", "from napari_unet import nn", "TID251"),
            ("core/new.py", "from ..gui import panel", "TID251"),
            ("core/new.py", "import napari_unet.cli", "TID251"),
            ("nn/new.py", "from napari_unet.gui.segment.panel import SegmentPanel", "TID251"),
            ("nn/new.py", "from napari_unet import cli", "TID251"),
            ("nn/new.py", "import napari", "TID251"),
            ("gui/new.py", "import torch", "TID253"),
            ("gui/new.py", "from napari_unet.nn.inference.segment import segment_steps", "TID253"),
            ("cli.py", "import torch", "TID253"),
            ("cli.py", "from napari_unet.nn import segment", "TID253"),
            ("__init__.py", "import napari", "TID253"),
        ],
    )
    def test_wrong_arrow_is_caught(self, file, line, rule):
        assert rule in self.complaints(file, line)

    @pytest.mark.parametrize(
        ("file", "line"),
        [
            ("nn/new.py", "import torch\n\nfrom napari_unet.core.tiles import Tile"),
            (
                "gui/new.py",
                "def run():\n    from napari_unet.nn.inference.segment import segment\n",
            ),
            ("gui/new.py", "import napari\n\nfrom napari_unet.core.models.store import home"),
            ("cli.py", "def run():\n    import torch\n    return torch"),
        ],
    )
    def test_right_arrow_passes(self, file, line):
        assert self.complaints(file, line) == ""

    @staticmethod
    def complaints(file: str, line: str) -> str:
        options = ["--select", "TID", "--output-format", "concise", "--quiet", "--no-cache"]
        command = [sys.executable, "-m", "ruff", "check", *options, "--stdin-filename"]
        path = str(SOURCE / file)
        run = subprocess.run(
            [*command, path, "-"], input=line, capture_output=True, text=True, check=False
        )
        assert run.returncode in (0, 1), run.stderr
        return run.stdout


class TestPublicNames:
    @pytest.mark.parametrize("name", napari_unet.__all__)
    def test_resolves(self, name):
        assert getattr(napari_unet, name) is not None

    def test_dir_lists_the_public_names(self):
        assert set(dir(napari_unet)) == set(napari_unet.__all__)

    def test_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
            napari_unet.segmnt  # noqa: B018

    def test_type_checkers_see_the_same_names(self):
        """The TYPE_CHECKING block and the lazy table are two lists of one thing."""
        tree = ast.parse((SOURCE / "__init__.py").read_text())
        block = next(node for node in tree.body if isinstance(node, ast.If))
        typed = {
            alias.name: statement.module
            for statement in block.body
            if isinstance(statement, ast.ImportFrom)
            for alias in statement.names
        }
        assert typed == napari_unet._HOME
        assert set(typed) | {"__version__"} == set(napari_unet.__all__)


class TestMetadata:
    def test_version_is_the_installed_one(self):
        assert importlib.metadata.version("napari-unet") == napari_unet.__version__

    def test_changelog_knows_the_version(self):
        assert napari_unet.__version__ in (ROOT / "CHANGELOG.md").read_text()

    def test_citation_is_of_this_version(self):
        lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
        assert f"version: {napari_unet.__version__}" in lines

    def test_every_import_is_a_declared_dependency(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        declared = {
            re.match(r"[\w.-]+", item)[0].lower()
            for extra in (project["dependencies"], *(extras[n] for n in extras if n != "test"))
            for item in extra
        }
        # `bioimageio`, where it is not installed, is what `bioimageio.spec` lies in.
        declared |= {name.partition(".")[0] for name in declared}
        owners = importlib.metadata.packages_distributions()
        undeclared = {
            (str(path.relative_to(SOURCE)), name)
            for path in SOURCE.rglob("*.py")
            for name in third_party(path)
            if not declared & {owner.lower() for owner in owners.get(name, [name])}
        }
        assert undeclared == set()


def third_party(path: Path) -> set[str]:
    """The top-level names that a module imports from other projects."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
    tops = {name.partition(".")[0] for name in names}
    return tops - set(sys.stdlib_module_names) - {"napari_unet"}


class TestDistributions:
    def test_wheel_holds_what_the_package_needs(self, distributions):
        names = set(zipfile.ZipFile(distributions[1]).namelist())
        package = {name.removeprefix("napari_unet/") for name in names}
        assert {
            "napari.yaml",
            "py.typed",
            "cli/__init__.py",
            "core/settings/__init__.py",
            "gui/segment/panel.py",
        } <= package
        for model in ("nuclei", "general"):
            files = ("model.safetensors", "model.json", "replay.npz", "thumbnail.png")
            assert {f"models/{model}/{name}" for name in files} <= package
        assert len([name for name in package if re.fullmatch(r"data/.+\.(png|tiff?)", name)]) >= 2
        assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
        assert any(name.endswith("licenses/src/napari_unet/data/README.md") for name in names)

    def test_wheel_holds_every_module_and_nothing_of_the_workshop(self, distributions):
        names = zipfile.ZipFile(distributions[1]).namelist()
        modules_in_wheel = {name for name in names if name.endswith(".py")}
        assert modules_in_wheel == {
            path.relative_to(ROOT / "src").as_posix() for path in SOURCE.rglob("*.py")
        }
        assert not [name for name in names if name.endswith(("ruff.toml", ".pyc"))]
        assert {name.split("/")[0].split("-")[0] for name in names} == {"napari_unet"}

    def test_wheel_is_small(self, distributions):
        assert distributions[1].stat().st_size < 13e6

    def test_manifest_in_the_wheel_is_the_one_at_the_top(self, distributions):
        packed = zipfile.ZipFile(distributions[1]).read("napari_unet/napari.yaml")
        assert packed == (ROOT / "napari.yaml").read_bytes()

    def test_wheel_from_the_checkout_equals_the_wheel_from_the_sdist(self, distributions, tmp_path):
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir"]
        subprocess.run([*command, str(tmp_path), str(ROOT)], check=True, capture_output=True)
        direct = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
        through_sdist = zipfile.ZipFile(distributions[1])
        assert sorted(direct.namelist()) == sorted(through_sdist.namelist())

    def test_sdist_holds_the_manifest_the_hook_and_the_tests(self, distributions):
        names = tarfile.open(distributions[0]).getnames()
        inside = {name.partition("/")[2] for name in names}
        assert {"napari.yaml", "hatch_build.py", "pyproject.toml", "README.md"} <= inside
        assert {"LICENSE", "tests/test_package.py", "src/napari_unet/py.typed"} <= inside
        assert {"CITATION.cff", "CONTRIBUTING.md", "docs/cluster.md"} <= inside
        assert {"mkdocs.yml", "docs/index.md"} <= inside
        assert "src/napari_unet/napari.yaml" not in inside
        assert not [
            name for name in inside if re.search(r"cache(__)?/", name) or name.startswith(".venv")
        ]

    def test_page_on_pypi_leads_nowhere_into_the_repository(self, distributions):
        wheel = zipfile.ZipFile(distributions[1])
        name = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        page = wheel.read(name).decode("utf-8")
        assert "Description-Content-Type: text/markdown" in page and "# napari-unet" in page
        assert "Tutorials: measure" in page and 'pip install "napari-unet[gui]"' in page
        assert re.findall(r"\]\((?!https:)[^)]*\)|<!--", page) == []

    def test_entry_points(self, distributions):
        wheel = zipfile.ZipFile(distributions[1])
        path = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        lines = wheel.read(path).decode().splitlines()
        assert "napari-unet = napari_unet.cli:main" in lines
        assert "napari-unet = napari_unet:napari.yaml" in lines


class TestManifest:
    def test_npe2_validates_the_installed_plugin_and_its_imports(self):
        command = [sys.executable, "-m", "npe2", "validate", "--imports", "napari-unet"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr

    def test_contributes_the_panel_the_menu_entry_and_the_samples(self):
        manifest = npe2.PluginManifest.from_distribution("napari-unet")
        contributions = manifest.contributions
        assert [widget.display_name for widget in contributions.widgets] == [
            "U-Net",
            "Segment",
            "Click",
            "Correct and fine-tune",
            "Measure",
            "Batch",
            "Models",
        ]
        assert [entry.command for entry in contributions.menus["napari/layers/segment"]] == [
            "napari-unet.panel",
            "napari-unet.segment",
            "napari-unet.click",
            "napari-unet.finetune",
            "napari-unet.batch",
            "napari-unet.models",
        ]
        assert [entry.command for entry in contributions.menus["napari/layers/measure"]] == [
            "napari-unet.measure"
        ]
        assert [sample.display_name for sample in contributions.sample_data] == [
            "Nuclei (fluorescence)",
            "Nuclei (histology)",
            "Cells (phase contrast)",
            "Neuron (bright field)",
        ]


class TestCommandLine:
    @pytest.mark.parametrize(
        "start",
        [
            [sys.executable, "-m", "napari_unet"],
            [str(Path(sys.executable).with_name("napari-unet"))],
        ],
        ids=["module", "script"],
    )
    def test_answers_to_both_names(self, start):
        run = subprocess.run([*start, "--help"], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert "segment" in run.stdout
