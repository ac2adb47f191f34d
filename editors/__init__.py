"""Editing strategies: which fields are walked, from where to where, to turn a source picture into the asked one."""
