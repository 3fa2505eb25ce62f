"""What an operator does with the whole engine: inspect it, follow events, repair what is stuck, administer tenants.

All of it takes the database of the schema's owner, and what changes something takes its origin: who asks.
"""
