"""One trainer for all networks: a task says what is trained, a recipe how, ``train`` does it."""
