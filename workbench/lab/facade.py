"""The facade: one object that holds a model, its SAEs and what is known of their features."""

from __future__ import annotations

from workbench.lab.following import Following
from workbench.lab.learning import Learning
from workbench.lab.writing import Writing


class Lab(Writing, Following, Learning):
    """A model and its SAEs, ready to use.

    No logic of its own: each method says which module does the work.
    """
