"""Models: velocity fields that solvers walk, each an adapter around a network with its codec and its text encoders."""
