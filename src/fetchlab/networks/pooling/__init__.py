"""From feature maps to a feature vector, one file each."""
