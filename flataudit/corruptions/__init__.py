"""Seeded, graded corruptions of inputs, by kind of data."""
