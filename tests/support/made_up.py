"""Times that nobody measured, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterable

from rsdtr.measuring.layer_times import DeviceProfile, FormTime, LayerCase, LayerTimes
from rsdtr.ring.forms import FORMS


def layer_times(case: LayerCase, **best: float) -> LayerTimes:
    """Best times in ms, 10 of every form but for what is given (O_IHW for O|IHW).

    Medians are 1 ms more, interquartile ranges half a millisecond.
    """
    given = {name.replace("_", "|"): value for name, value in best.items()}
    times = {form: given.get(form, 10.0) for form in FORMS}
    return LayerTimes(
        case=case,
        forms=tuple(
            FormTime(form=form, median_ms=value + 1, iqr_ms=0.5, best_ms=value)
            for form, value in times.items()
        ),
    )


def times_by_rank(case: LayerCase) -> LayerTimes:
    """A ring that takes as many ms as R_2 says in every form, and dense as good as for ever."""
    ring = dict.fromkeys(("pipeline", "O_IHW", "I_HWO", "IH_WO"), float(case.ranks[2]))
    return layer_times(case, dense=1e6, **ring)


def device_profile(cases: Iterable[LayerCase], machine: str, **best: float) -> DeviceProfile:
    """A profile with the same times for every case."""
    layers = [layer_times(case, **best) for case in cases]
    return DeviceProfile(machine=machine).extended(layers)
