"""The scenes world: pictures drawn from named attributes, so that every edit has a known right answer.

Nothing is imported here; take what you need from the modules: `attributes` (names and captions), `render` (pictures),
`counterfactual` (edits and their truth), `codec`, `text` and `network` (the small FLUX), `train`, `judge`, `evaluate`.
"""
