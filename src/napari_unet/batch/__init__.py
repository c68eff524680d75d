"""Image files to label files, from the command line and the Batch panel.

file_job      one image: where its labels go, whether in blocks, and the run
replay        a result made again from its provenance, and what differs
replay_table  a table measured again
run           many images, one after the other: what is finished is skipped, what fails ends nothing
"""
