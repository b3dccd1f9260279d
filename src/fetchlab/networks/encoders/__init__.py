"""Convolutional encoders, one file each."""
