"""Copies of images across folds and sets, and test images that are not like training images: found, told, kept together."""
