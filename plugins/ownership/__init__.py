"""Ownership transfer: the job.

Data flows one way: message -> event -> lane -> plan -> rows -> documents -> outcome. Each folder says what it is;
`domain`, `ledger`, `platform` and `stages` import nothing of Airflow.
"""
