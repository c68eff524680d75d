"""Volumes for networks that see planes: the ways through them, and objects joined through z."""
