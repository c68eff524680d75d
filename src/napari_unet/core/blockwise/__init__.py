"""Runs block by block, without the network: what is computed where, kept how, and joined to what.

blocks            the plan of a run: its blocks, batches of planes, settings
run_directory     the files of an unfinished run, whatever ended it; its provisional labels
join              blocks joined by their summaries alone, in a tree
assemble          the label image from the files of finished blocks
output_location   where the label image goes
estimate          time, memory and disk that a run will take
"""
