"""From a model and a question (ε_p or target) to a plan without tensors."""
