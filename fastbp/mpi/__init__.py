"""One network trained by several processes: who has which rows, and how gradients are added up.

shards        a step's batch in parts, and the one tree along which their gradients are added
steps         steps on the engine with a batch cut like that
communicator  the processes, mpi4py's ranks: sums, what they tell each other, errors that end all
"""
