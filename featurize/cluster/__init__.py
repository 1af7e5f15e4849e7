"""Units computed by actors of a Ray cluster (extra ``ray``): a driver in a process of its own, and what runs on the nodes."""
