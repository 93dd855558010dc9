"""How the overlay is made: what is shown, an own typeface, sprites, panels, and where they may stand."""
