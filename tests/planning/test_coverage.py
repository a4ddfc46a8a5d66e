from rsdtr.planning.coverage import coverage
from rsdtr.planning.model_profile import profile
from rsdtr.planning.plan import plan
from tests.support.networks import varied, varied_spec


def test_it_counts_what_becomes_rings():
    found = profile(varied(), varied_spec())
    params = sum(p.numel() for p in varied().parameters())
    paper = coverage(plan(found, 0.4))
    share = 100 * (16 * 12 * 9 + 20 * 16 * 15) / params  # body and wide
    assert paper == (
        f"2 of 6 convolutions become rings, {share:.3g} % of the network's parameters; "
        "linear layers and all else stay as trained."
    )
    assert " of 6 convolutions and 0 of 1 linear layer become" in coverage(
        plan(found, 0.4, layers="auto")
    )
