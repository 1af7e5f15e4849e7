"""The waist of the hourglass: what is kept of images on disk, and nothing about pixels or labels.

Beside it stands what both halves share: errors, tables, configuration, console, progress, signals, the processor.
"""
