"""The routes of the page, a router a subject. Each asks for Airflow's own user: the app of a plugin is open otherwise."""
