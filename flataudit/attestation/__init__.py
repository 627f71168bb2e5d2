"""What a decision says of a model's bytes, signed: whoever serves the model can check it, without the gate."""
