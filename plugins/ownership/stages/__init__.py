"""The tasks of a run, as plain functions over `parts.Parts`.

| task | modules |
| --- | --- |
| `pull_transfer_events` | `pull`; it reads the topic (`intake`, `inbox`), carries out `orders`, and proves a window again (`second_proof`) |
| `lookup_users` | `lookup`, by `verdicts` about the users and `phases` about the events; `gates` says what ends or waits there |
| `update_course_batches` | `update` |
| `reindex_course_batches` | `reindex`, then `later_phases` of the same slice |
| `settle` | `settle`, `finished` |

A stage works on `claimed_work`, and asks its `claim` before it writes. Beside the run stand `approval_questions` and
`rehearsals`.
"""
