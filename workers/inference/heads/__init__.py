"""From hidden states to labels and vectors: trained heads, zero-shot heads, pooling."""
