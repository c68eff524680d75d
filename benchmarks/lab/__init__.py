"""What only trainings and benchmarks use, and no user of the package runs.

scenes          generated pictures with labels: cells, fibres, textures and more
volume_scenes   generated volumes of nuclei with labels
membranes       maps of membranes scored as in the ISBI 2012 challenge
"""
