"""Tenants, users and roles, and their synchronization."""
