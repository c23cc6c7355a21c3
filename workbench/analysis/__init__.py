"""Techniques, one file each: what they need comes from the engine, what they find is a value."""
