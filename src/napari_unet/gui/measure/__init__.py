"""The Measure panel: the objects of a Labels layer in numbers.

panel  the panel and its form, the histogram, the way from a row to its object and back
run    one measurement, and finding an object in it again
table  the table of objects
"""
