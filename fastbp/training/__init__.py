"""One run of `fit`: batches, chunks, validation, checkpoints, Ctrl-C."""
