"""Orders of the orders service: a confirmed one is paid, a cancelled one is not, or gets its money back."""
