"""What is trained: one module for each network."""
