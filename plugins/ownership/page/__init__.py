"""The page "Ownership transfers" in Airflow's UI.

| module | does |
| --- | --- |
| `entry` | what the plugin registers: the app, its place in the navigation, the link of a task instance |
| `app` | routes: who may see and do what, headers, which template |
| `access` | Airflow's own checks of users, and the token of a form |
| `store` | the process's one session to Cassandra |
| `reads` | the ledger as the page reads it: by key, in pages, bounded |
| `views` | from rows to what is shown. Pure |
| `payload` | what of an event may be shown. Pure |
| `actions` | which DAG, with which conf, each button starts, and what will happen then |

Only `entry` is imported when a process of Airflow starts: the page must not stand in its way.
"""
