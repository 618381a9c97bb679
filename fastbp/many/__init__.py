"""Many networks at once: see README.md in this folder.

arguments   one for all or one for each, checked before anything trains
preparation from what fit_many is given to members
members     a network among many: its data, its settings, and the run that `fit` would make of them
crew        a queue of networks, and a thread for each core that takes the next one
fit         fit_many
"""
