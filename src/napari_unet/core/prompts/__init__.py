"""Prompts: what a user shows of an object.

clicks        clicks, boxes, the object that they select, and an undo stack
rays          clicks in a 3D view: the voxels along the line of sight
scribbles     filters of an image, and objects out of a probability
simulation    a robot that clicks as people do, for training and measuring
"""
