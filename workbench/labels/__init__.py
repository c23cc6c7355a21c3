"""What features stand for: labels by people, by rule, by a language model, by Neuronpedia.

    lab.labels.set((5, 231), "weekdays")            # by hand, kept with its history
    job = lab.autolabel([(5, 231), (5, 8)])         # by rule, no network; shows what it will do
    job.run()                                       # the labels and their scores, as a table
    lab.label((5, "res"), 231)                      # Label: text, method, score, date, author

`store` keeps everything that was ever said; `examples` divides what is known of a feature into what
may be looked at and what is held out; `automatic` and `explain` make labels, `scoring` tests them;
`endpoint` and `local` are the language models; `neuronpedia` reads what others found.
"""

from __future__ import annotations

from workbench.labels.automatic import Rule, automatic_label
from workbench.labels.endpoint import Endpoint
from workbench.labels.files import NotLabelsError
from workbench.labels.job import Autolabel
from workbench.labels.local import LocalModel
from workbench.labels.neuronpedia import Neuronpedia
from workbench.labels.records import Label
from workbench.labels.store import Labels

__all__ = [
    "Autolabel",
    "Endpoint",
    "Label",
    "Labels",
    "LocalModel",
    "Neuronpedia",
    "NotLabelsError",
    "Rule",
    "automatic_label",
]
