"""The journal of corrections: how it is written, read, and kept on the disk.

From the bottom up: `recordfile` (records that survive a kill), `edits` (what a record says),
`begin`, `base` and `history` (the image, the labels as they were, undo), `view`, `writer`.
"""
