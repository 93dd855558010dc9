"""The networks as torch modules. Only training and export import this; live use runs the exported graphs.

Every network is a frozen preset plus one module that reads it, so a published system and the small live
one differ in a table, not in code. `presets.build` makes them, `reparam.deploy` folds a copy for use.
"""
