"""What the sources are made of: reading devices and files, resampling, and when a sample was captured."""
