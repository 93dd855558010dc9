"""What browsers and other programs on this machine are served: a guarded server, cues, pages."""
