"""The page "Ownership transfers" in Airflow's UI.

| module | does |
| --- | --- |
| `entry` | what the plugin registers: the app, its place in the navigation, the link of a task instance |
| `app` | the app: its routes and headers, and what it answers when something goes wrong |
| `routes` | a router a subject: who may see and do what, which template |
| `api` | the API, for programs and the command line |
| `cursors` | where a page of a list begins, in addresses. Pure |
| `rendering` | templates and static files |
| `access` | Airflow's own checks of users, and the token of a form |
| `starting` | starts a run through Airflow's own API |
| `store` | the process's database of the ledger; `ledger/reads` has the queries |
| `views` | from what is read to what is shown, a module a subject. Pure |
| `payload` | what of an event may be shown. Pure |
| `actions` | which DAG, with which conf, each button starts, and what will happen then |

Only `entry` is imported when a process of Airflow starts: the page must not stand in its way.
"""
