"""The measuring scenarios behind `minoots bench`.

A scenario is one module with a frozen dataclass of parameters and `run(stage, parameters)`: it makes a schema of its
own on the stage's servers, loads it, starts the roles that it needs as processes, and measures. What they share:

    stage.py      what a scenario stands on: servers, roles, progress
    servers.py    the Postgres and NATS that were given, else embedded ones; a schema a pass
    roles.py      `minoots serve …` as processes
    sampling.py   CPU seconds and peak memory of processes
    loading.py    many rows, fast
    commits.py    when transactions became visible
    verdict.py    lost, twice, early: from the rows
    figures.py    percentiles, medians, the result
    report.py     the table, the JSON line
    plot.py       the picture
"""
