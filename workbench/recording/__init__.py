"""Recordings: a run with what was found on it, as one file that opens with no model."""

from __future__ import annotations
