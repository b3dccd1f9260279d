"""What the measurements of encoders share: networks, frames, geometry, tables."""
