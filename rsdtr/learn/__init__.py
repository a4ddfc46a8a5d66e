"""The lesson as data: numbers, texts, quiz, figures."""
