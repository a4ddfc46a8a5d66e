"""Types that every package shares."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Progress = Callable[[int, int], None]  # (done so far, in all)


class Frozen(BaseModel):
    """A value that is checked when it is made, and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
