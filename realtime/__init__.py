"""The live path, from light and sound to a drawn emotion. The files of this folder are its stations:

    camera      \\                          / search > track > crop \\
    replay       > ring, audio_ring > sight                          > scheduler > pooling > fusion
    microphone  /                          \\ window, attribution   /                  |
                                                          sinks < overlay < smoothing <

`sight` looks at every picture: `search` finds faces, `track` follows them, `crop` cuts them out.
`scheduler` is the only caller of engines: `window` says what is due, `attribution` whose voice it is,
`pooling` sums up evidence over time, `fusion` joins face and voice, `smoothing` steadies the answer.
`overlay` draws it. All of them speak the vocabulary of `clock`, `frame`, `cue` and `errors`.

Beside them stand what the scheduler leans on: `hearing` for one microphone as `sight` is for one camera,
`people` for those in view, `networks` to ask all engines in one go, `confidence` in what they say, `relief`
when the machine is late, `signs` that somebody speaks, `clarity` of the sound; and `portrait`, a source that
moves pictures as if filmed by hand.

One level down: `capture` and `faces` hold what sources and `search`, `track`, `sight` are made of, `drawing`
what the overlay is made of, `sinks` the outputs, `run` what starts and wires it all, `testing` the fakes.
"""
