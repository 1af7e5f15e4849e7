"""From an image to what a network is given: squares, augmented copies, channels, normalisation."""
