"""Text generation: sampling, stop sequences, continuous batching."""
