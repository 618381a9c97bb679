"""What a model is made of, from the ground up; `fastbp.model` puts users' methods on top.

layout          where each parameter array lies in the flat one
architecture    what the constructor is told: checked, to JSON and back, repr, summary
parameters      the flat array and its views, initial values, what users put in their place
streams         the random generators: shuffling, rows held out, dropout and noise
results         what forward and backward return, and whether a trace is this network's
backend         what computes with all that: the interface, and the steps that it is given
evaluation      the loss of samples, and its derivative at the output
spare_plans     what is prepared for one network and taken by the next one of equal design
plans           what is prepared for the uses of one network
compiled        the backend on the engine (the one in NumPy is in `fastbp.reference`)
network         the parts kept together, copied and pickled
"""
