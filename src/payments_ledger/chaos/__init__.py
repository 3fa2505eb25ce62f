"""Faults that an administrator injects on demand."""
