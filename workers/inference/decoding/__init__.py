"""How text is generated: sampling, stop sequences, continuous batching."""
