"""A hundred random networks; `make soak` makes two thousand."""

import pytest

from rsdtr.models import zoo
from tests.soak.generated_networks import outcome


@pytest.mark.parametrize("tens", range(10))
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_each_keeps_its_promises_or_is_refused_in_one_sentence(tens, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_OWN", dict(zoo._OWN))
    found = [outcome(10 * tens + one, tmp_path / str(one)) for one in range(10)]
    assert found.count("rings") >= 4
