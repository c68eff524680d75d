"""Measurements of labelled objects.

measure           measure, measure_steps: the objects of an image, block by block
moments           sums over parts of objects, joined exactly; convex hulls
table_provenance  what a table was measured from, in a file beside it
table             from the sums to columns (diameter, axes, elongation ...); CSV, a layer's features
"""
