"""The waist of the hourglass: what is kept of images on disk, and nothing about pixels or labels."""
