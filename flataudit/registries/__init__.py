"""Where candidates come from and decisions go to."""
