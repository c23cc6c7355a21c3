"""SAEs of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from workbench.index.corpus import Texts
from workbench.lab.core import Core
from workbench.sites import Kind
from workbench.training import TrainConfig

if TYPE_CHECKING:
    from workbench.lab.facade import Lab


class Learning(Core):
    """Trains SAEs."""

    def train_saes(
        self,
        texts: Texts,
        configs: Mapping[str, TrainConfig],
        *,
        layer: int,
        kind: Kind = "res",
        **options: Any,
    ) -> Any:
        """Train SAEs of one site side by side, in the background: `workbench.panels.Training`.

        training = lab.train_saes(texts, {"TopK": wb.TrainConfig(activation="topk")}, layer=3)
        training                            # live curves, with a Stop button
        lab.use(training.wait()["TopK"])    # in every widget from now on
        """
        from workbench.panels import Training

        return Training(cast("Lab", self), texts, configs, layer=layer, kind=kind, **options)
