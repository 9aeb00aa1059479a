"""``emo eval``: what predictions and trained weights are worth, as a page with figures, plots and examples."""
