"""What each calibrating command does: reads its inputs, calls `calibration`, says what came of it."""
