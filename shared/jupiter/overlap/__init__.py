"""Which texts say the same: words and shingles, signatures of near-duplicates, and the texts that are not trained on.

Owns: the rules of likeness that more than one service goes by. Does not know: what follows from them.
"""
