"""Behind the Segment panel: its form, runs and results, and the Evaluate section."""
