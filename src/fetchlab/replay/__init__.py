"""Memory-mapped single-frame replay and hindsight sampling."""
