"""Metrics: one number for one picture, given its case. What they need is loaded on first use and kept by the object."""
