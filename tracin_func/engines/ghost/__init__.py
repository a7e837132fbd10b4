"""Exact kernel from one batched forward and one backward, without per-item transforms."""
