"""One training objective per task: rows to token ids, batches to tensors, logits to losses."""
