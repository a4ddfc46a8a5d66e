"""What runs as a job: how each kind is queued, run and resumed."""
