"""Which images there are, and how their files become planes of pixels in [0, 1]."""
