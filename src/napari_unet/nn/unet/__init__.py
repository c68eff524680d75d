"""Networks and their losses.

layers       what a U-Net is built from: convolutions, gates, pooling, up-sampling
net          the U-Net: trunk and the convolution of the head
fused        the same for running on processors: fused operators, large levels in strips
click_head   the network that answers clicks, on the trunk's features
refiner      the network that makes the outlines of its answers sharper
prompts      clicks and a previous mask as maps of a window
losses       losses of the heads
portable     the U-Net in one file that needs nothing but torch, for packages
convert      a network as that file's, as TorchScript, as ONNX
summary      a table of a network's parts, their weights and costs
"""
