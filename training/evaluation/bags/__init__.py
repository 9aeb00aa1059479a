"""Evaluation by bag: recordings through all stages or the live graph, and what comes out beside what is right."""
