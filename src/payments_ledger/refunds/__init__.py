"""Refunds: facts that give the money of settled payments back, all of it or in parts."""
