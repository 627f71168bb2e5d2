"""Where examinations run."""
