"""Where weights come from, as a value: every module asks it, and none decodes a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

SYNTHETIC = "none"  # the word for it on the command line, in files and in addresses


@dataclass(frozen=True)
class WeightsSource:
    """Published (or bundled) weights, a file of one's own, or seeded ones that nobody trained.

    file: the path of that file; synthetic: seeded weights with a decaying spectrum, for timing.
    """

    file: Path | None = None
    synthetic: bool = False

    def __post_init__(self) -> None:
        if self.synthetic and self.file is not None:
            raise ValueError(f"synthetic weights lie in no file, and {self.file} was given")

    @classmethod
    def of(cls, word: WeightsLike) -> WeightsSource:
        """What the word of a user means: None, "none", or the path of a file."""
        if isinstance(word, WeightsSource):
            return word
        if word == SYNTHETIC:
            return cls(synthetic=True)
        return cls(None if word is None else Path(word))

    @property
    def published(self) -> bool:
        """Whether they are those that come with the model."""
        return self.file is None and not self.synthetic

    @property
    def word(self) -> str | None:
        """The word that means it, as `of` reads it."""
        return SYNTHETIC if self.synthetic else None if self.file is None else str(self.file)

    def same_everywhere(self) -> WeightsSource:
        """What means the same wherever a process is started."""
        return self if self.file is None else WeightsSource(self.file.resolve())

    def without_folder(self) -> WeightsSource:
        """What a reader may see of it: the folder is nobody else's business."""
        return self if self.file is None else WeightsSource(Path(self.file.name))


def _read(word: object) -> WeightsSource:
    if not isinstance(word, WeightsLike):
        raise ValueError("should be null, 'none' or the path of a file")
    return WeightsSource.of(word)


WeightsLike = WeightsSource | str | Path | None
PUBLISHED = WeightsSource()
# A field of a file: its word is what is written.
WeightsField = Annotated[
    WeightsSource,
    BeforeValidator(_read),
    PlainSerializer(lambda weights: weights.word, return_type=str | None),
]
