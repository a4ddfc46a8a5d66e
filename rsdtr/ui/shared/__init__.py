"""What every page uses: frame, session, address, widgets, figures, numbers."""
