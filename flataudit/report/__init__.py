"""Documents made from records alone, one file a format."""
