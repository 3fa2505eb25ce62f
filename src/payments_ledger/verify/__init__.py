"""The audit of the books: runs the invariants that the modules declare, over the rows themselves, changing nothing."""
