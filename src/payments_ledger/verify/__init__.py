"""The audit of the books: everything that must hold is recomputed from the rows themselves, and nothing is changed."""
