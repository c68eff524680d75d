"""Runs in blocks, without the network: what is computed where, kept how, and joined to what.

From the bottom up: `blocks` (where they lie), `framegroups` and `runplan` (what is computed
together), `workplace` (what a run has finished, on the disk), `pieces`, `parts` and `joining`
(objects that cross blocks get one id), `stacking` (and planes), `assembling` (the label image).
Around them: `labelplace` (where results go), `preflight` (what a run will take), `preview` (what
there is of it so far), `guard` (chunks that cannot be read).
"""
