"""Which ring for one kernel: circular shifts × divisors at a prescribed error."""
