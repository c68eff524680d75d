"""Labels against their truth: scores of files and parts, and pictures of both."""
