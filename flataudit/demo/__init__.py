"""The whole main job on real data that ships with the package."""
