"""How a comparison is shown: progress, tables, a reading in words, a grid of pictures, plots."""

FILE_WIDTH = 160
"""Columns of a file or a pipe, which have no width of their own."""
