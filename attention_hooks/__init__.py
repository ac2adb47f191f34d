"""Read and change attention features while a network runs: points, hooks, and a store to record into and inject from."""
