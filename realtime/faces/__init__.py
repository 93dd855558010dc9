"""What `search`, `track` and `face_analyzer` are made of: the detector, motion, assignment, steady boxes."""
