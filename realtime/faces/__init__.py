"""What `search`, `track` and `sight` are made of: the detector, motion, assignment, steady boxes."""
