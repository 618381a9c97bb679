"""Looking at a model and at this installation: gradient check, diagnosis, configuration."""
