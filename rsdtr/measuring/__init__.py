"""What a network reaches and takes: accuracy, fidelity, latency, the fastest form and ring."""
