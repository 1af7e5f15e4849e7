"""Images to features: pixels go in, a cache comes out, and no label is ever seen."""
