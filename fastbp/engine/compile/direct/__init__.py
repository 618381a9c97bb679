"""Functions of numbers, from their Python text to LLVM's, without Numba's way in between.

What drives the kernels knows integers, tuples of them and structs: names, arithmetic, `if`, `while`, `for`
over a range, and calls of one another. For that Numba's analysis of bytecode, its types and its rewriting
take 10 to 20 ms a function, more than a second of a first call; to translate the text takes less than one.
"""
