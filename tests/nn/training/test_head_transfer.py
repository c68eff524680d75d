"""New networks have the shape asked for; new heads leave the trunk as it is."""

from __future__ import annotations

import torch

from napari_unet.nn.training.head_transfer import fresh_spec, transfer_head


def test_a_head_that_fits_already_gives_the_model_itself(make_model):
    model = make_model()
    assert transfer_head(model, None) is model


def test_other_channels_see_the_same_grey_image(make_model):
    """Three equal channels for a network that had one give what the one gave."""
    one = make_model(in_channels=1)
    three = transfer_head(one, None, channels=3)
    grey = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.allclose(one.net(grey), three.net(grey.repeat(1, 3, 1, 1)), atol=1e-5)


def test_the_user_chooses_depth_and_width():
    spec = fresh_spec(2, 1, depth=2, width=6)
    assert (spec.depth, spec.width, spec.head) == (2, 6, "instance")
    spec = fresh_spec(3, 1, 2, voxel_size_um=(1.0, 0.25, 0.25))
    assert spec.factors == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert spec.stride == (2, 8, 8)
    assert spec.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert fresh_spec(3, 1, voxel_size_um=(1.0, 1.0, 1.0)).kernels is None
