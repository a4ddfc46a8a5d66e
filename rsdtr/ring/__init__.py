"""The tensor ring of a kernel as a value, its forms and costs, from shapes alone."""

from rsdtr.ring.cost import form_macs
from rsdtr.ring.forms import FORMS, Form
from rsdtr.ring.tensor_ring import TensorRing

__all__ = ["FORMS", "Form", "TensorRing", "form_macs"]
