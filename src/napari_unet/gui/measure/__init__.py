"""Behind the Measure panel: its form, a measurement, and the table of objects."""
