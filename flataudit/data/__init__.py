"""The audit's examples, read and checked."""
