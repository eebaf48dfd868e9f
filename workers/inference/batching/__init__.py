"""From texts to tensors: tokenization, dynamic batching under a token budget, autotuning."""
