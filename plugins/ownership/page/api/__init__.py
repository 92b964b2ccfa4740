"""The API, under the page's app at ``/api/v1``.

| module | does |
| --- | --- |
| `app` | the app: its routers and its OpenAPI |
| `transfers` | reads: a list, one transfer, its batches |
| `questions` | what happened to a batch, what a user holds now, what is proven |
| `orders` | writes: new transfers and actions, each a run of Airflow |
| `imports` | files of transfers: taken in, dry-run, carried out |
| `exports` | transfers and changes as files |
| `health` | what the job's own watch found last |
| `models` | what it answers. Pure |
| `problems` | what it answers when something goes wrong: `application/problem+json` |
| `requests` | what a body may be: JSON, of bounded size |

The app asks for `access.MayRead`, and so for a user, of all routes. A mid may hold ``/``, which many proxies do not
pass on in a path, also when it is encoded: it is always a query parameter or in the body.
"""
