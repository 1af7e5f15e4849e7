"""Fitted heads' answers for test images, in a sample submission's rows and columns."""
