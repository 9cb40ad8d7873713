"""Hyper-parameters that a script changes in an optimizer of which the servers have a copy. Pure."""

from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

from baryon.ps import Multipliers

__all__ = ["Hyper", "LiveHyper"]


class Hyper(NamedTuple):
    """What may change between steps: scalars, and the multipliers of each key."""

    scalars: Dict[str, Any]
    lr_mult: Multipliers
    wd_mult: Multipliers


class LiveHyper:
    """Those of the script's optimizer, and as the servers have been told of them."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._told = _hyper_of(optimizer)  # with the optimizer itself

    @property
    def multipliers(self) -> Tuple[Multipliers, Multipliers]:
        return self._told.lr_mult, self._told.wd_mult

    def take_change(self) -> Optional[Hyper]:
        """What the servers are to be told now: of the scalars those that the script has changed,
        and no others, since some are changed by the optimizer itself, on the servers."""
        now, before = _hyper_of(self._optimizer), self._told
        if now == before:
            return None
        self._told = now
        changed = {
            name: value
            for name, value in now.scalars.items()
            if name not in before.scalars or before.scalars[name] != value
        }
        return now._replace(scalars=changed)


def _hyper_of(optimizer: Any) -> Hyper:
    """Multipliers also of Gluon's parameters, which MXNet leaves out when it pickles an optimizer.
    Counts of updates are the servers' own."""
    scalars = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in vars(optimizer).items()
        if (value is None or isinstance(value, (bool, int, float, np.number)))
        and not name.startswith("_")
        and name not in ("num_update", "begin_num_update", "lr_scheduler")
    }
    lr_mult, wd_mult = dict(optimizer.lr_mult), dict(optimizer.wd_mult)
    for index, parameter in optimizer.param_dict.items():
        lr_mult[index], wd_mult[index] = parameter.lr_mult, parameter.wd_mult
    return Hyper(scalars, list(lr_mult.items()), list(wd_mult.items()))
