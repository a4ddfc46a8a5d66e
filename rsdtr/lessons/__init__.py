"""What the Learn page teaches, as data: its steps, its questions and its glossary."""
