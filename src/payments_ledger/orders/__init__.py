"""Orders of the orders service: a confirmed one is settled as a payment, a cancelled one is not, or is refunded."""
