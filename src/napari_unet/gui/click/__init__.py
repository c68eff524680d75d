"""Behind the Click panel: click mode, its layer, its keys and its own thread."""
