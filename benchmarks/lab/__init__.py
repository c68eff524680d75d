"""What only trainings and benchmarks use, and no user of the package runs.

synthetic_images    generated images with labels: cells, fibres, textures and more
synthetic_kinds    more of them, an object never inside another: rods, rings, branched cells, tissue
synthetic_volumes   generated volumes of nuclei with labels
membranes           scores of membrane maps as in the ISBI 2012 challenge
event_loop          a real window: how late its event loop is, and why
kills               a process that is killed, and what it had said
report              medians and percentiles of times; results as JSON
"""
