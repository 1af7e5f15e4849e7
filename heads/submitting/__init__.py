"""Fitted heads' answers for test images and their cells, in a sample submission's rows and columns."""
