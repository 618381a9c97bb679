"""The command line: `fastbp train`, `predict`, `demo`, `check`, `bench`, `data`."""
