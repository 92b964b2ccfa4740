"""What the fault suite puts into Airflow's processes: a recorder of operations, clocks that jump, and a way to take a guard out."""
