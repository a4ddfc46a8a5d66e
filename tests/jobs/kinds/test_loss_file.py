"""The file of losses that a job writes while somebody reads it."""

from rsdtr.jobs.kinds.loss_file import read_losses


def test_a_half_written_line_is_left_out(tmp_path):
    (tmp_path / "losses.csv").write_text("0.5,0.1\n0.25,0.2\n0.1")
    assert read_losses(tmp_path / "losses.csv") == [(0.5, 0.1), (0.25, 0.2)]
    assert read_losses(tmp_path / "none.csv") == []
