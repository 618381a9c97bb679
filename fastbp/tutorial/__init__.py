"""`fastbp tutorial`: from the equations to the fast network, as a page and as a notebook.

`page` puts together what `runs` computes on this machine, what `drawing` makes of it and what `texts` says in
each language. `command` is what the command line calls.
"""
