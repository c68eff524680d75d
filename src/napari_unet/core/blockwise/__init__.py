"""Runs block by block, without the network: what is computed where, kept how, and joined to what.

blocks            the blocks of a frame, batches of planes
run_plan          what decides the labels of a run, and whether an unfinished one is the same
run_directory     the files of an unfinished run, whatever ended it; its provisional labels
join              blocks joined by their summaries alone, in a tree
assemble          the label image from the files of finished blocks
output_location   where the label image goes
estimate          time, memory and disk that a run will take
"""
