"""Looking at a model, at a function and at this installation: gradients, diagnosis, configuration."""
