"""The benchmark's answers have their structure, whatever the times."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from napari_unet.nn import bench
from napari_unet.nn.bench import Plan, best_times, run_bench, stand_in

PLAN = Plan(sizes=(32,), large=64, edges=(32, 64, 4096), window=32, batches=(1, 2), repeats=1)


def test_answers_are_plain_and_complete(make_model, monkeypatch):
    monkeypatch.setattr(bench, "SPEC_3D", make_model(ndim=3).spec)
    monkeypatch.setattr(bench, "sliding_window", lambda *_: None)  # slow to import
    plan = Plan(**{**vars(PLAN), "volume": (8, 16, 16)})
    lines: list[str] = []
    results = run_bench(True, lines.append, plan=plan, model=make_model(depth=1))
    assert json.loads(json.dumps(results)) == results
    parts = {"quick", "machine", "frames", "onnx", "tiled", "monai", "volume", "seconds"}
    assert set(results) == parts
    if importlib.util.find_spec("onnxruntime"):
        onnx = results["onnx"]
        assert onnx["provider"] == "cpu" and onnx["tile"] == 32
        assert onnx["ratio"] == pytest.approx(onnx["mpx_per_s"] / onnx["torch_mpx_per_s"])
    else:
        assert results["onnx"] is None
    assert {"processor", "threads", "torch", "device", "precision"} <= set(results["machine"])
    (frame,) = results["frames"]
    assert frame["shape"] == [32, 32]
    assert frame["frames_per_s"] > 0
    assert 0 < frame["network_share"]
    assert 0 < frame["decoding_share"]
    assert results["volume"]["shape"] == [8, 16, 16]
    assert results["volume"]["goal"] is None
    tiled = results["tiled"]
    assert tiled["forward_tile"] in (32, 64)
    assert tiled["share"] == pytest.approx(tiled["mpx_per_s"] / tiled["forward_mpx_per_s"])
    assert any("image to labels, 32 x 32" in line for line in lines)
    assert any("tiled, 64 x 64" in line for line in lines)


def test_says_so_where_monai_is_missing(make_model, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(bench, "_onnx", lambda *_: None)  # torch imports what it needs for that
    monkeypatch.setattr(bench.importlib, "import_module", missing)
    lines: list[str] = []
    assert run_bench(True, lines.append, plan=PLAN, model=make_model(depth=1))["monai"] is None
    assert "napari-unet[bench]" in lines[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="needs the bench extra")
def test_monai_runs_the_same_weights(make_model):
    model = make_model(depth=1)
    slide = bench.sliding_window(model, 32, model.net)
    values = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(slide(values, 1), model.net(values), atol=1e-5)
    results = run_bench(True, lambda line: None, plan=PLAN, model=model)["monai"]
    assert results["sw_batch_size"] in (1, 2)
    assert results["ratio"] > 0
    assert results["fused_ratio"] > 0


def test_the_stand_in_is_the_same_each_time_and_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    first, second = stand_in(), stand_in()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.spec == bench.SPEC
    for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_tasks_take_turns():
    order: list[str] = []
    tasks = {name: lambda name=name: order.append(name) for name in "ab"}
    times = best_times(tasks, 2, torch.device("cpu"))
    assert order == ["a", "b", "a", "b"]
    assert set(times) == {"a", "b"}
