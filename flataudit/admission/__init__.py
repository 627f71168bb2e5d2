"""What may come in: a candidate's files copied as bytes, and looked at before anything loads them."""
