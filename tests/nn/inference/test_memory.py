"""The tile follows the memory that is free."""

from __future__ import annotations

import pytest
import torch

from napari_unet.nn.inference import memory


def test_the_tile_follows_the_free_memory(make_model, monkeypatch):
    model = make_model(width=16, depth=4)
    runner = model.runner()

    def edge(free):
        free_memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free_memory)
        return memory.choose_edge(model.spec, runner, 1, live=False)

    assert edge(64 * 2**30) == memory.LARGEST_TILE[2]
    assert edge(10**6) == 16
    assert edge(2**29) < edge(2**31)


def test_what_torch_keeps_for_later_counts_as_free(make_model, monkeypatch):
    """A GPU's second frame must not get smaller tiles because the first one filled the cache."""
    spec, runner = make_model(width=16, depth=4).spec, make_model().runner()
    on_gpu = type("OnGpu", (), {"device": torch.device("cuda"), "dtype": runner.dtype})

    def edge(free, reserved, allocated):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
        return memory.choose_edge(spec, on_gpu, 1, live=False)

    assert edge(2**30, 0, 0) == edge(2**28, 2**30, 2**28) > edge(2**28, 0, 0)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_signs_of_too_little_memory(error, is_one):
    assert memory.is_out_of_memory(error) is is_one


def test_an_image_that_is_shrunk_is_read_in_bounded_parts(make_model, monkeypatch):
    memory_of_64_gib = type("Memory", (), {"available": 64 * 2**30})
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: memory_of_64_gib)
    model = make_model(width=16, depth=4)

    def edge(scale):
        return memory.choose_edge(model.spec, model.runner(), 1, live=False, scale=scale)

    assert [edge(scale) for scale in (4.0, 1.0, 0.5, 0.01)] == [2048, 2048, 1024, 256]
