"""The live path, from light and sound to a drawn emotion. The files of this folder are its stations:

    camera      \\                          / search > track > crop \\
    replay       > ring             > face_analyzer                  > scheduler > expression > networks
    microphone  /                          \\ window, attribution   /                  |
                                                          sinks < overlay < estimate <

`face_analyzer` looks at every picture: `search` finds faces with `blazeface`, `track` follows them, `crop`
cuts them out. `scheduler` is the only caller of engines: `window` says what is due, `attribution` whose
voice it is, `expression` sums up evidence since the last change, `networks` asks all engines in one go and
joins face and voice, `estimate` says how far that is believed and what is shown, `overlay` draws it. All of
them speak the vocabulary of `clock`, `frame`, which also says what a source is, `cue`, `errors`; what the
ending of a file says is in `endings`, and `replay` reads it.

What is said joins late: `words` hears one microphone, an `utterance` says which words are believed,
`hearing` does it for all of them in a thread of its own, `spoken` says who said it and what it tells of
them.

Beside them stand what the scheduler leans on: `voice_analyzer` for one microphone as `face_analyzer` is for
one camera, `people` for those in view, `health` for what things cost, what was lost, and what is left out
when the machine is late, `signs` that somebody speaks and how clearly.

What starts, watches and ends a run: `feeds` make a source of a name, with `devices` and the offsets of
`device_pairs`; a `supervisor` keeps each alive; `wiring` loads the networks and ties the stations;
`analysis` holds the threads behind a picture and sees to it that none stands still; `live` runs it all on
the clock of the machine and `lockstep` on that of a file; `screen` says what the overlay shows, `profile`
what a person is like at rest. `shared_screen` is a camera that watches a screen; `portrait` and `acting`
are cameras and a voice for who has none.

`decode`, `stream` and `sound_device` are what sources are made of; `film_clock` holds a film together whose
stamps begin again. One level down: `drawing` is what the
overlay is made of, `sinks` the outputs, `web` the server and pages, `testing` the fakes.
"""
