"""Containers: their records, their specification, their life, and the shims that hold them."""
