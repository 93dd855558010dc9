"""What makes scores mean something: calibration of numbers, of confidence and of time."""
