"""Benchmarks: what a figure in the documentation was measured with. Nothing else imports them."""
