"""How a comparison is shown: progress, tables, a reading in words, a grid of pictures, plots."""
