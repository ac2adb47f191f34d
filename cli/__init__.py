"""The command line: one command a file, nothing heavy imported before a command's body runs."""
