"""A compressed network that carries its plan, saved, loaded and pushed as models of a hub are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue
from torch import Tensor, nn

from rsdtr.compressed.saved import load, save
from rsdtr.errors import ExportError, WeightsError, first_line
from rsdtr.models import hub
from rsdtr.models.zoo import ModelSpec, spec_of
from rsdtr.planning.plan import CompressionPlan
from rsdtr.system.extras import missing_extra
from rsdtr.system.templates import text_template

_TEMPLATE = text_template(Path(__file__).with_name("templates") / "README.md.j2")


class RingNetwork(nn.Module):
    """A network compressed by `plan`: images (B, C, H, W) to logits (B, classes).

    model: what `compress` made, trained further or not; metrics: numbers worth keeping with it, of
    which the model card tells `accuracy` (percent), `interval` and `data`.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: CompressionPlan,
        metrics: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.metrics = dict(metrics or {})

    @property
    def spec(self) -> ModelSpec:
        """How images are prepared for it, and its classes."""
        return spec_of(self.model, self.plan.model)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def card(self, place: str = "owner/name") -> str:
        """The text of README.md: metadata for the hub, PCR, accuracy where it is known, how to load
        it with this package and without; place: the repository or folder that it names.
        """
        spec, told = self.spec, self.metrics
        accuracy, interval = told.get("accuracy"), told.get("interval")
        within = ""
        if isinstance(interval, list | tuple) and len(interval) == 2:
            within = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})"
        return _TEMPLATE.render(
            plan=self.plan, spec=spec, place=place, name=place.rpartition("/")[2],
            base=spec.hub.partition("@")[0] or None,
            pipeline={"classification": "image-classification",
                      "segmentation": "image-segmentation",
                      "detection": "object-detection"}.get(spec.task),
            accuracy=accuracy if isinstance(accuracy, int | float) else None, interval=within,
            data=str(told.get("data") or spec.data or "its test images"),
            weights=told.get("weights"),
            rings=[layer.name for layer in self.plan.layers if layer.ranks is not None],
        )  # fmt: skip

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors, manifest.json and README.md; ExportError as `rsdtr.save`."""
        place = Path(folder).expanduser().resolve().name
        return save(self.model, self.plan, folder, metrics=self.metrics, card=self.card(place))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        commit_message: str = "Push model compressed with rsdtr",
    ) -> str:
        """Upload what `save_pretrained` writes to the repository owner/name, which is made where it
        is not there yet: the address of the commit. WeightsError where the hub refuses it.
        """
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from None
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="rsdtr")
        with tempfile.TemporaryDirectory(prefix="rsdtr-") as temporary:
            folder = save(
                self.model, self.plan, Path(temporary) / "model", metrics=self.metrics,
                card=self.card(repo_id),
            )  # fmt: skip
            try:
                repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                commit = api.upload_folder(
                    repo_id=repository, folder_path=folder, revision=branch,
                    commit_message=commit_message,
                )  # fmt: skip
            except (OSError, ValueError, RuntimeError) as error:
                first = first_line(error)
                raise WeightsError(
                    f"{repo_id} could not be pushed ({first}): log in by `hf auth login`, or give "
                    "a token that may write there"
                ) from error
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        network: nn.Module | Callable[[], nn.Module] | None = None,
        revision: str | None = None,
    ) -> RingNetwork:
        """Read such a folder or repository, owner/name or hf:owner/name, in eval mode on the CPU.

        network: as in `rsdtr.load`; revision: of a repository. A folder is read without any
        network. Of a repository manifest.json and model.safetensors are downloaded, or taken from
        the hub's cache folder, and nothing of it is run. Errors as those of `rsdtr.load`, and
        WeightsError where the repository is not to be had.
        """
        place = Path(folder)
        folder = folder.removeprefix(hub.PREFIX) if isinstance(folder, str) else folder
        if not place.exists() and isinstance(folder, str) and hub.is_repository(folder):
            place = _downloaded(f"{folder}@{revision}" if revision else folder)
        saved = load(place, network)
        metrics: dict[str, JsonValue] = saved.metrics
        return cls(saved.model, saved.plan, metrics).eval()


def _downloaded(repository: str) -> Path:
    """The folder of a repository's files in the hub's cache."""
    try:
        return hub.compressed_folder(repository)
    except WeightsError as error:
        raise ExportError(f"{repository} is no folder, and as a repository: {error}") from error
