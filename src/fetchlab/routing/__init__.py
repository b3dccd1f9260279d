"""Which loss trains the shared encoder, one file each."""
