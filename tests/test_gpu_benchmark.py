"""The benchmark of a card runs anywhere, and its answer has every part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {
    "end_to_end", "equality", "tiles", "tiled", "planes", "roofline", "windows", "graphs",
    "overlap", "decoding", "click", "tuning",
}  # fmt: skip
BLOCK = """
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ABSENT = {
    "psutil", "safetensors", "zarr", "numcodecs", "imagecodecs", "platformdirs", "matplotlib",
    "magicgui", "qtpy", "napari", "dask",
}  # fmt: skip


def measure(tmp_path, *options):
    """Run the command with a few libraries out of reach; return its process and its figures."""
    out = tmp_path / "gpu.json"
    program = BLOCK.format(names=ABSENT)
    script = str(ROOT / "benchmarks" / "gpu.py")
    arguments = ["--device", "cpu", "--size", "128", "--quick", "--json", str(out), *options]
    run = subprocess.run(
        [sys.executable, "-c", program, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    return run, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.slow
def test_every_part_is_measured_with_few_libraries(tmp_path):
    run, found = measure(tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert set(found["parts"]) == PARTS
    assert found["failed"] == {}
    assert found["left_out"] == []
    assert found["equality"]["float32"]["equal"]
    assert found["equality"]["objects"] > 3
    assert found["planes"][0]["equal"]
    assert found["decoding"]["same_ids"]
    assert found["roofline"]["flop_per_px"] > 50_000
    assert found["click"]["second_ms"] > 0


@pytest.mark.slow
def test_a_budget_that_is_spent_leaves_parts_out(tmp_path):
    run, found = measure(tmp_path, "--budget", "0")
    assert run.returncode == 0, run.stderr[-2000:]
    assert set(found["left_out"]) == PARTS
