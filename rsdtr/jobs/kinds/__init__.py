"""The kinds of jobs, one module each: how it is queued, run and looked at."""
