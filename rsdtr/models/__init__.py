"""Networks: where they come from, architectures, weights, what they answer."""
