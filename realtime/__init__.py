"""The live path, from light and sound to a drawn emotion. The files of this folder are its stations:

    camera      \\                          / search > track > crop \\
    replay       > ring, audio_ring > sight                          > scheduler > pooling > fusion
    microphone  /                          \\ window, attribution   /                  |
                                                          sinks < overlay < smoothing <

`sight` looks at every picture: `search` finds faces, `track` follows them, `crop` cuts them out.
`scheduler` is the only caller of engines: `window` says what is due, `attribution` whose voice it is,
`pooling` sums up evidence over time, `fusion` joins face and voice, `smoothing` steadies the answer.
`overlay` draws it. All of them speak the vocabulary of `clock`, `frame`, `cue` and `errors`.

Each station keeps its companions beside it, which nobody else needs:
`camera`: `grabber`. `microphone`: `portaudio`, `sound_time`, `resample`. `replay`: `decode`; `portrait` moves
pictures as if filmed by hand and `stamp` writes their number into them. `search` and `crop`: `blazeface`.
`track`: `assign`, `motion`, `steady`. `attribution`: `signs`. `scheduler`: `hearing` for one microphone,
`people` for those in view, `networks` to ask all engines in one go, `relief` when the machine is late.
"""
