"""The methods that RSDTR is compared with: every one from a kernel, or from a network, to a smaller one."""
