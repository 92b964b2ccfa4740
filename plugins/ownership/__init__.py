"""Ownership transfer: the domain of the job.

Data flows one way: message -> event -> lane -> plan -> rows -> documents -> outcome.
Nothing here imports Airflow except the edge: ``hooks``, ``sensors``, ``triggers``,
``retries``, ``assets``, ``tasks`` and ``metrics``.
"""
