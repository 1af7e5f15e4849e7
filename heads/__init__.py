"""Features to probabilities: a cache and labels go in, a run and a submission come out, and no pixel is ever seen."""
