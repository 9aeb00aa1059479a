"""``emo doctor``: the checks, one small function each, and what becomes of their findings."""
