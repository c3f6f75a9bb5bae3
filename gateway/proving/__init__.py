"""Proofs of the promise: what devices sent is held against what the store holds. Stands above all rooms."""
