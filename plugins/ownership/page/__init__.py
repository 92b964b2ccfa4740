"""The page "Ownership transfers" in Airflow's UI.

| module | does |
| --- | --- |
| `entry` | what the plugin registers: the app, its place in the navigation, the link of a task instance |
| `app` | routes: who may see and do what, headers, which template |
| `access` | Airflow's own checks of users, and the token of a form |
| `store` | the process's database of the ledger; `ledger/reads` has the queries |
| `views` | from what is read to what is shown, a module a subject. Pure |
| `payload` | what of an event may be shown. Pure |
| `actions` | which DAG, with which conf, each button starts, and what will happen then |

Only `entry` is imported when a process of Airflow starts: the page must not stand in its way.
"""
