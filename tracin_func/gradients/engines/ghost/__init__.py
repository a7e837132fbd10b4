"""The engine that captures gradients in one batched forward and backward."""
