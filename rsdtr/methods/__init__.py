"""The methods that RSDTR is compared with: from a kernel, or a network, to a smaller one."""
