"""How good predictions are, with intervals: of one label an image, and of many."""
