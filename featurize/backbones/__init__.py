"""Frozen networks: spelled, found with their weights, built, tapped, made quick."""
