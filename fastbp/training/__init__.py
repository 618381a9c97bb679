"""One run of `fit`, from its arguments to the history.

options         what `fit` was asked for, checked
start           data become samples, rows are held out; short trainings are done at once
batches         where the batches of an iterable come from
run, batch_run  chunks of steps, epochs, callbacks: over arrays, and over an iterable of batches
course          what a run shows of itself to the modules below
validation      what is computed on data held out
checkpoint      a run in a file, and back; settings: what a call was given, to compare
divergence      back to the last finite parameters
interrupt       Ctrl-C while steps run
progress        what one sees meanwhile
"""
