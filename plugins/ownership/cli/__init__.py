"""The command line, over the API: ``python -m ownership``, or ``ownership`` where the package is installed.

| module | does |
| --- | --- |
| `client` | the API's client: sign in, ask, wait |
| `commands` | what can be asked, with its options and exit codes |
| `output` | tables, JSON and progress |

It needs no Airflow, only its address.
"""
