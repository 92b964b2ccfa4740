"""The page "Ownership transfers" in Airflow's UI.

| module | does |
| --- | --- |
| `entry` | what the plugin registers: the app, its place in the navigation, the link of a task instance |
| `app` | the app: its routes and headers, and what it answers when something goes wrong |
| `routes` | a router a subject: who may see and do what, which template |
| `api` | the API, for programs and the command line |
| `cursors` | where a page of a list begins, in addresses. Pure |
| `rendering` | templates and static files |
| `access`, `airflow_facts` | who may see and do what; what Airflow knows of runs, hosts and settings |
| `forms` | the token of a form |
| `parameters` | what addresses may carry |
| `details`, `questions` | what page and API both read: one transfer; a batch or a user in all stores |
| `starting` | starts a run through Airflow's own API |
| `settings`, `store`, `platform` | the job's settings, the ledger and the platform's stores, kept by the process |
| `names` | names beside the ids of users |
| `importing`, `exporting` | files of transfers, in and out |
| `host` | what an API server tells the ledger of itself |
| `views` | from what is read to what is shown, a module a subject. Pure |
| `payload` | what of an event may be shown. Pure |
| `actions` | which DAG, with which conf, each button starts, and what will happen then |

Only `entry` is imported when a process of Airflow starts: the page must not stand in its way.
"""
