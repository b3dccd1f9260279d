"""What runs have shown: curves read, compared and published."""
