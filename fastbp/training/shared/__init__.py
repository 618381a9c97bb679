"""One call of `fit` that several processes make together.

agreement  whether it is the same call everywhere, and who has which shards
run        chunks of steps in step: what rank 0 decides, and what its callbacks change
state      what a rank is sent to be where rank 0 is
"""
