"""Files and stores: readers, writers, chunks of large arrays, results with their provenance."""
