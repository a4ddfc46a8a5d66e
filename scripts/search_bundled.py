"""Write the winners of the bundled network, which the program comes with.

    python scripts/search_bundled.py

They are those of every rule and objective at every ε_p of the grid, as a first search would find
them; tests/planning/test_winners_on_disk.py searches some of them anew. To be run again when the
search, its grid or the network changes.
"""

import collections
import os
import tempfile

from rsdtr.models import load_model, model_spec
from rsdtr.planning import winners_on_disk
from rsdtr.planning.model_profile import profile


def main() -> None:
    winners_on_disk.BUNDLED.mkdir(exist_ok=True)
    for old in winners_on_disk.BUNDLED.iterdir():
        old.unlink()
    spec = model_spec("digits_resnet20")
    found = profile(load_model(spec.name), spec)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RSDTR_CACHE"] = folder
        collections.deque(winners_on_disk.fill_store(found), maxlen=0)
        written = winners_on_disk.store_path(found).read_bytes()
    path = winners_on_disk.BUNDLED / winners_on_disk.file_name(found)
    path.write_bytes(written)
    print(f"{path}: {len(written):,} bytes")


if __name__ == "__main__":
    main()
