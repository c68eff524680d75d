"""Measurements of labelled objects.

measure  measure, measure_steps: the objects of an image, block by block
moments  sizes, moments and intensities of parts of objects, joined exactly; convex hulls
table    columns of the table, CSV, features of a napari layer
"""
