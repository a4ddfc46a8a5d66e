"""Images with or without labels, as one model takes them."""
