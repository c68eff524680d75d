"""Behind the Batch panel: its form, and the list of files."""
