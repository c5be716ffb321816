"""Training: batches, losses, the loop, and the step on Ray Train."""
