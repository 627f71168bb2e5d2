"""Paired intervals, non-inferiority, the score: numpy and scipy, no I/O."""
