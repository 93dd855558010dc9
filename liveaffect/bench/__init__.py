"""`liveaffect bench`: what this machine does with the live path, in minutes, as a table, JSON and one page.

A figure is measured in blocks that are spread over the whole run, each beside a yardstick of plain
arithmetic, so that two runs can be compared although the machine's pace changed between them.
"""
