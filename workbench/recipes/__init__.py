"""Steering set-ups that can be kept: rows, recipes as JSON, and scripts that need no workbench."""
