"""Numerics of the loss surface in pure torch, a file an idea, named for its paper."""
