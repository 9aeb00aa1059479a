"""Why somebody shows an emotion: what is explained, what may have caused it, which it was, and one sentence of it.

``encoder`` and ``words`` read sentences, ``targets`` finds what is worth explaining, ``features`` and ``ranker`` compare
the candidates, ``realiser`` writes the sentence, ``rephrase`` may have it reworded, ``stage`` watches the stamps.
"""
