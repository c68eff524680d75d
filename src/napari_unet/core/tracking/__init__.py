"""Objects through time: found again in the next frame, linked, and written as tracks."""
