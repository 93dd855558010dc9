"""Where pictures and cues go: one file for each kind of output, all behind one contract."""
