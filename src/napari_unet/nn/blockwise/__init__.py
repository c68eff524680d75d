"""Runs block by block: the labels of stacks larger than memory.

run        the way in: `segment_blocks`, and the stages of a run
plan       a new plan, or the one to resume, if it asks for the same; one tile is tried
executor   who does the steps, and the work on one block
cluster    an executor that has the workers of a dask cluster do them
"""
