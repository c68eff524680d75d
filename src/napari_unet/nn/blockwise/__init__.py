"""Runs block by block: the labels of stacks larger than memory.

run        the way in: `segment_blocks`, and the stages of a run
plan       what is run: requested, resolved once, and tried on one tile
executor   who does the steps, and the work on one block
cluster    an executor that has the workers of a dask cluster do them
"""
