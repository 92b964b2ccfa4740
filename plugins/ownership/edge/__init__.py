"""Airflow: operators, triggers, hooks, retries, notifications, metrics."""
