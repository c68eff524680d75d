"""The Batch panel: a model over a list of files.

panel      the panel, its form, and the job that works through the list
file_list  the list of files: one row a file, with its state
"""
