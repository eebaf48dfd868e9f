"""From texts to tensors: tokenization, dynamic batching by a token budget, autotuning."""
