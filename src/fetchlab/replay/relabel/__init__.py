"""Goal relabelling strategies, one file each."""
