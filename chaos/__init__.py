"""
Two real regions under load, and what befalls them: `make chaos`.

    schedule    what happens when, and to whom: a function of the seed
    site        the regions that run, as faults see them: kill, stop, hold down, restart
    faults/     processes, stores, disks, clocks; links and frames between them are in `links` and `frames`, releases in `releases`
    runner      carries a schedule out while the load runs, heals, and asks the judge
    load        the load, a process of its own, with its own record of what it was answered
    checker     the judge, a process of its own, which knows of the product only what anybody can ask it

Invariants:
    - nothing of the product knows that there is chaos: faults come from outside, by signals, files, sockets and preloaded libraries;
    - a fault that could not be carried out ends the run with an error, or stands in the result as left out.
"""
