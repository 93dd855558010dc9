"""What starts, wires, supervises and ends the stations; the only place that knows all of them."""
