"""Tables and images from files: .csv, .npy, .npz and IDX in, a `Table` out."""
