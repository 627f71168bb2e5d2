"""Searching the neighbourhood of each input for one that the model gets wrong, and proving that there is none."""
