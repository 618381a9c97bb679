"""From what a caller gives to rows of numbers, once; nobody below looks at it again.

sources  arrays, files and labels, whose rows are converted when they are read
targets  what values a loss takes; labels of classes; the weights of samples and classes
samples  inputs and targets as the steps of a training take them
reader   what checks, scales and converts data for one network, and makes samples of them
"""
