"""Control decides what happens next; it does no heavy work, and any number of it may run."""
