"""Which emotion each person in view shows, and how sure that is: from cameras, microphones and files."""
