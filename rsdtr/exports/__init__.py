"""What an export writes beside its cores, and the proof of each file."""
