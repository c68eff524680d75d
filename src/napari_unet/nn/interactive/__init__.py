"""Clicks and scribbles: from a click to the object's mask, and to a change of the labels.

session           `ClickSession`: the active object with its history; undo, redo, commit
interaction       what a click means among the objects of the labels
active_object     what a click, a box or growth through planes makes of an object
ray_click         clicks in a 3D view: the voxel along the line of sight that is meant
mask_predictor    clicks in one frame to a mask, by the click head on cached features
click_window      the window of a frame that an answer is about, and its pixels in the stack
refined_window    the window in which an object's outline is refined
size_by_click     how large the objects of an image are, by one click
scribbles         a few strokes on objects and background to a first segmentation
"""
