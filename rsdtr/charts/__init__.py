"""Plotly figures of plain data. Nothing that must do without Plotly imports them."""
