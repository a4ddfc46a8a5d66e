"""What the operating system gives: the cache folder, files that are whole, processes, downloads."""
