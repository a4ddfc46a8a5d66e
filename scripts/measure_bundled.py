"""Measure the trade-off curves of the bundled network, which the program comes with.

    python scripts/measure_bundled.py

By both rules: recalibrated at every ε_p of the slider and at the targets, by the paper's rule refit
too at the coarse ones. It takes half an hour on one core; what is there already is not measured
again. tests/recovery/test_curves_on_disk.py measures points anew. To be run again, into an empty
folder, when the network, the search or a recovery changes.
"""

import torch

from rsdtr.data import load_data
from rsdtr.data.datasets import data_identity
from rsdtr.models import load_model, model_spec
from rsdtr.planning import Choices
from rsdtr.planning.model_profile import profile
from rsdtr.planning.winners_on_disk import load_winners
from rsdtr.recovery.curves_on_disk import BUNDLED, file_name, load_curve
from rsdtr.recovery.tradeoff_curve import (
    TEST_IMAGES,
    CurveKey,
    coarse_questions,
    dense_curve,
    every_question,
    measure_curve,
)
from rsdtr.search.candidate import RULES
from rsdtr.system.atomic_files import SHARED, replace_file


def main() -> None:
    torch.set_num_threads(1)
    BUNDLED.mkdir(exist_ok=True)
    spec = model_spec("digits_resnet20")
    dense = load_model(spec.name)
    costs = profile(dense, spec)
    load_winners(costs)
    data = load_data(None, spec)
    for rule in RULES:
        like = Choices(rule=rule)
        key = CurveKey.of(costs, like, data_identity(None, spec), TEST_IMAGES)
        path = BUNDLED / file_name(key)
        curve = begun = load_curve(key) or dense_curve(dense, costs, data, key)
        for curve in measure_curve(dense, costs, data, begun, every_question(like)):
            replace_file(path, curve.model_dump_json().encode(), SHARED)
        if rule == "paper":
            begun = curve
            for curve in measure_curve(dense, costs, data, begun, coarse_questions(like), "refit"):
                replace_file(path, curve.model_dump_json().encode(), SHARED)
        print(f"{path}: {len(curve.points)} points")


if __name__ == "__main__":
    main()
