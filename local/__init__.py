"""The local stack: real servers without Docker, stand-ins of the two services, Airflow on top."""
