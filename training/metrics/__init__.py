"""The field's scorers and ours: captions, classes, action units, phrases, grounding and causes. None of them trains anything."""
