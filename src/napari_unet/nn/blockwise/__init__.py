"""Runs in blocks: `large` is the way in.

`largeplan` settles what is run, `stages` lists its steps, `pool` and `cluster` carry them out, here
or on a cluster's workers, `blocks` is the work on one block; `probe` tries a tile before the start,
to say how long all of it will take.
"""
