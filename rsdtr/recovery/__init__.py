"""Accuracy won back: recalibration, least squares, fine-tuning."""
