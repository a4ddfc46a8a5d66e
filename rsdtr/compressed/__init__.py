"""The compressed network: its layer, how a plan is carried out, merged, saved, loaded."""

from rsdtr.compressed.compress import compress
from rsdtr.compressed.fuse import fuse
from rsdtr.compressed.pretrained import RingNetwork
from rsdtr.compressed.saved import load, save
from rsdtr.compressed.tr_conv2d import TRConv2d
from rsdtr.compressed.tr_linear import TRLinear

__all__ = ["RingNetwork", "TRConv2d", "TRLinear", "compress", "fuse", "load", "save"]
