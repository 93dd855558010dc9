"""Readers of corpora, and the training of every network; nothing here is needed to use one."""
