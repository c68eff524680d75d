"""Corrections of labels: what is known, each stroke on record, undo, and what comes back."""
