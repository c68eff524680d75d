"""Volumes for networks that see planes.

volume_mode  which way a volume is segmented; its planes across z, y and x for the orthogonal mode
stitch3d     objects of planes joined through z
"""
