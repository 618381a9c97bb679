"""Models in other people's compiled code: `@njit` functions, C, SciPy's integrators.

methods         what a model can do there, as methods of the model in Python
handle          what compiled code holds of a model, and keeps alive with it
numba_types     the same methods in functions that Numba compiles
training_state  what training steps in compiled code need of an optimizer
c_function      addresses and a header for C, and SciPy's integrators
errors          what they raise
"""
