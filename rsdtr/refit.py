"""Refitting cores without labels or gradients: each ring layer learns the dense one's output."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rsdtr.data import LabelledImages
from rsdtr.errors import DataError, RsdtrError
from rsdtr.evaluate import device_of
from rsdtr.layers import TRConv2d
from rsdtr.regression import Moments, columns, fitted
from rsdtr.ring import TensorRing
from rsdtr.walk import Values, Walk

MODES = (1, 2, 3, 0)


@dataclass(frozen=True)
class RefitOptions:
    cores: str = "all"
    sweeps: int = 3
    rounds: int = 2
    ridge: float = 1e-3
    blocks: bool = True
    relu: bool = True
    positions: int = 1024
    batch_size: int = 100
    held: float = 0.2
    budget: float = 2e9
    seed: int = 0


@dataclass(frozen=True)
class Site:
    node: fx.Node
    name: str
    norm: str | None
    addend: fx.Node | None
    matched: fx.Node
    relu: bool


@torch.no_grad()
def refit(model, reference, images, n=1000, *, options=RefitOptions(), log=print):
    model = copy.deepcopy(model).eval()
    reference = copy.deepcopy(reference).eval()
    o = options
    chosen = images.subset(n, o.seed)
    g = torch.Generator().manual_seed(o.seed)
    batches = [p for p, _ in chosen.batches(o.batch_size, g)]
    held = max(1, round(o.held * len(batches)))
    ours, dense = Walk(model, batches, o.budget / 2), Walk(reference, batches, o.budget / 2)
    for site in sites(ours, o):
        place = ours.position[site.node]
        layer = ours.modules[site.name]
        kernel0 = dense.modules[site.name].weight
        norm = ours.modules[site.norm] if site.norm else None
        if norm is not None:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            offset = norm.bias - norm.running_mean * scale
            scale = torch.where(scale.abs() < 1e-3 * scale.abs().max(), 1e-3 * scale.abs().max(), scale)
        else:
            scale = torch.ones(layer.out_channels); offset = torch.zeros(layer.out_channels)
        c0, *rest = layer.ring.cores
        ring = TensorRing((c0 * scale[:, None], *rest), layer.shift)
        bias = torch.zeros(layer.out_channels)
        free_bias = norm is not None
        start = None
        for rnd in range(o.rounds if site.relu and o.relu else 1):
            gen = torch.Generator().manual_seed(o.seed)
            sums = [None, None]
            w = ring.to_tensor().float()
            for b in range(len(batches)):
                mine, theirs = ours.to(b, place), dense.to(b, place)
                z = dense.beyond(theirs, dense.nodes[ours.position[site.matched]])
                x = mine[site.node.args[0]]
                p = columns(layer, x, o.positions, gen)
                base = offset
                if site.addend is not None:
                    base = base + p.of(ours.beyond(mine, site.addend))
                y = p.of(z) - base
                if rnd:
                    pred = p.columns @ w.flatten(1).T + bias.float()
                    y = torch.where((y + base <= 0) & (pred + base <= 0), pred, y)
                m = Moments.of(p.columns, y)
                k = int(b >= len(batches) - held)
                sums[k] = m if sums[k] is None else sums[k] + m
            fit, check = sums
            before = check.error(w, bias)
            c = fit.centred() if free_bias else fit
            c = c.with_prior(kernel0 * scale[:, None, None, None], o.ridge)
            new = fitted(ring, c, MODES if o.cores == "all" else (0,), o.sweeps)
            wn = new.to_tensor()
            bn = fit.best_bias(wn) if free_bias else bias
            after = check.error(wn, bn)
            log(f"{site.name} round {rnd} add {site.addend is not None} relu {site.relu} rel. held {before/check.power:.4f} -> {after/check.power:.4f} fit {fit.error(wn,bn)/fit.power:.4f}")
            if not after < before:
                break
            ring, bias = new, bn
        c0, *rest = ring.cores
        for core, value in zip(layer.cores, (c0 / scale.double()[:, None], *rest), strict=True):
            core.copy_(value)
        if norm is not None:
            norm.running_mean -= (bias / scale).to(norm.running_mean.dtype)
    return model


def sites(walk, options):
    found = []
    for node in walk.nodes:
        module = walk.modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, TRConv2d):
            continue
        matched, norm, addend = node, None, None
        user = _only_user(matched)
        if user is not None and user.op == "call_module" and isinstance(walk.modules[str(user.target)], _BatchNorm):
            norm, matched = str(user.target), user
        user = _only_user(matched)
        if options.blocks and user is not None and user.target in (operator.add, torch.add, "add"):
            (other,) = [x for x in user.args if x is not matched]
            before = walk.nodes[: walk.position[node]]
            if not any(isinstance(walk.modules.get(str(x.target)), TRConv2d) for x in walk.needed(before, other)):
                addend, matched = other, user
        user = matched.users
        relu = all(u.target in (F.relu, torch.relu, "relu") or (u.op == "call_module" and isinstance(walk.modules[str(u.target)], nn.ReLU)) for u in user)
        found.append(Site(node, str(node.target), norm, addend, matched, relu))
    return found


def _only_user(node):
    users = list(node.users)
    return users[0] if len(users) == 1 else None
