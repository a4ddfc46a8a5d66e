"""What every layer that holds a ring has: four trainable cores, a form, and merged kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from rsdtr.errors import RingError
from rsdtr.models.surgery import Replacement, Weighted
from rsdtr.ring.forms import FORMS, Form, Kernels, Sublayer, sublayer_kernels, sublayers
from rsdtr.ring.tensor_ring import TensorRing, too_coarse

Shape = tuple[int, int, int, int]


class RingLayer(Replacement):
    """A layer whose kernel (O, I, KH, KW) is a ring of four cores (arXiv 2405.10802, sec. 3.2).

    Sublayer kernels are contracted at every step while gradients are taken. In eval mode without
    gradients they are kept until a core changes; writing through `core.data` goes unnoticed there,
    as it does for autograd. What is kept is neither saved nor copied.

    Parameters that train and save: `cores.0` … `cores.3`, core k of shape (R_k, n_k, R_{k+1}),
    and `bias` (O,) or None; in a state_dict they stand where `weight` and `bias` stood. `weight`
    can be read, but it cannot be set. Those who derive from it say in `_prepare` what running in a
    form takes.
    """

    groups: int = 1

    def _hold(
        self,
        shape: Shape,
        ranks: Sequence[int],
        *,
        bias: bool,
        shift: int,
        form: Form,
        device: torch.device | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Take the form, and random cores and bias; last in a constructor. RingError for ranks that
        make no ring.
        """
        if len(ranks) != 4 or min(ranks) < 1:
            raise RingError(f"ranks are {tuple(ranks)}, expected four whole numbers of at least 1")
        self.kernel_shape = shape
        self.shift = shift
        self.cores = nn.ParameterList(
            torch.empty(ranks[k], shape[k], ranks[(k + 1) % 4], device=device, dtype=dtype)
            for k in range(4)
        )
        self.bias = (
            nn.Parameter(torch.empty(shape[0], device=device, dtype=dtype)) if bias else None
        )
        self.form = form
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random cores whose kernel has the variance of torch's default, 1 / (3·fan-in)."""
        r0, r1, r2, r3 = self.ranks
        _, i, kh, kw = self.kernel_shape
        fan_in = i * kh * kw
        # An entry of the kernel is a sum of r0·r1·r2·r3 products of four core entries.
        deviation = (3 * fan_in * r0 * r1 * r2 * r3) ** (-1 / 8)
        for core in self.cores:
            nn.init.normal_(core, std=deviation)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def _take(self, layer: Weighted, ring: TensorRing) -> None:
        """The ring's values and the layer's bias, mode, and what of them trains."""
        with torch.no_grad():
            for parameter, core in zip(self.cores, ring.cores, strict=True):
                parameter.copy_(core)
            if self.bias is not None and layer.bias is not None:
                self.bias.copy_(layer.bias)
                self.bias.requires_grad_(layer.bias.requires_grad)
        self.cores.requires_grad_(layer.weight.requires_grad)
        self.train(layer.training)

    @property
    def ranks(self) -> tuple[int, int, int, int]:
        """R_0…R_3 in the mode order O, I, KH, KW."""
        r0, r1, r2, r3 = (core.shape[0] for core in self.cores)
        return r0, r1, r2, r3

    @property
    def ring(self) -> TensorRing:
        """A detached copy of the cores as a value."""
        c0, c1, c2, c3 = (core.detach().clone() for core in self.cores)
        return TensorRing((c0, c1, c2, c3), self.shift)

    @property
    def form(self) -> Form:
        """How the layer is computed; RingError when set to anything else than one of FORMS."""
        return self._form

    @form.setter
    def form(self, form: Form) -> None:
        if form not in FORMS:
            raise RingError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
        self._form: Form = form
        self._prepare()
        self._kept: dict[Form, _Kept] = {}

    def _prepare(self) -> None:
        """What is the same at every pass in this form."""
        raise NotImplementedError

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """The convolutions that compute the layer in its form, in the order they run."""
        return sublayers(self.form, self.kernel_shape, self.ranks, self.groups)

    def kernel(self) -> Tensor:
        """The kernel (O, I/groups, KH, KW) of the cores; gradients flow to the cores."""
        (kernel,) = sublayer_kernels("dense", list(self.cores))
        return kernel

    @property
    def weight(self) -> Tensor:
        """A copy of the kernel in the shape that the layer before had it, merged once as `kernels`
        are; RingError when it is set.
        """
        (kernel,) = self._merged("dense")
        return self._as_weight(kernel if kernel.requires_grad else kernel.clone())

    @weight.setter
    def weight(self, value: Tensor) -> None:
        raise RingError(
            f"the kernel of a {type(self).__name__} is merged from its cores and cannot be set: "
            "change the network before it is compressed, or the cores"
        )

    def _as_weight(self, kernel: Tensor) -> Tensor:
        return kernel

    def kernels(self) -> Kernels:
        """The kernels of `sublayers`; gradients flow to the cores where they are taken."""
        return self._merged(self._form)

    def _merged(self, form: Form) -> Kernels:
        # Not list(self.cores): that takes longer than a small convolution.
        cores = cast(list[Tensor], list(self.cores._parameters.values()))
        if not self._may_keep(cores):
            return sublayer_kernels(form, cores)
        kept = self._kept.get(form)  # read once: another thread may replace it
        if kept is None or not kept.valid(cores):
            # Not an inference tensor: it may serve outside of inference mode as well.
            with torch.inference_mode(False), torch.no_grad():
                kernels = tuple(k.contiguous() for k in sublayer_kernels(form, cores))
                versions = [core._version for core in cores]
                kept = _Kept(kernels, [core.detach() for core in cores], versions)
            self._kept[form] = kept
        return kept.kernels

    def _may_keep(self, cores: list[Tensor]) -> bool:
        if self.training or torch.compiler.is_compiling():
            return False
        if torch.is_grad_enabled() and any(core.requires_grad for core in cores):
            return False
        if any(
            # Anything but a plain parameter is a stand-in: of functorch, or of a fake tensor mode.
            type(core) is not nn.Parameter or core.is_meta or core.is_inference()
            for core in cores
        ):
            return False
        # Under autocast they are contracted in the dtype of the moment.
        return not torch.is_autocast_enabled(cores[0].device.type)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}


def check_stands_for(layer: Weighted, ring: TensorRing, shape: Sequence[int], what: str) -> None:
    """RingError unless a ring of this shape can take the layer's place; what: its kind in words."""
    if reason := too_coarse(layer.weight):
        raise RingError(reason)
    if ring.shape != tuple(shape):
        raise RingError(
            f"the ring stands for a kernel {ring.shape}, the {what}'s is "
            f"{tuple(shape)}: decompose this {what}'s own kernel"
        )


@dataclass(frozen=True, eq=False)
class _Kept:
    """Sublayer kernels, and the state of the cores that they were contracted from.

    The cores are kept as detached views: they hold on to the memory, so that no other tensor can
    have the same address as long as they are compared.
    """

    kernels: Kernels
    cores: list[Tensor]
    versions: list[int]

    def valid(self, cores: list[Tensor]) -> bool:
        return all(
            core.data_ptr() == old.data_ptr()
            and core._version == version
            and core.dtype == old.dtype
            for core, old, version in zip(cores, self.cores, self.versions, strict=True)
        )
