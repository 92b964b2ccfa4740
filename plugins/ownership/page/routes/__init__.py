"""The routes of the page, a router a subject. The app asks for Airflow's own user of all of them."""
