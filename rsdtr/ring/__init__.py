"""The tensor ring of a kernel as a value, its forms and costs, from shapes alone."""
