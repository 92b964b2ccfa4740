"""Python runs this at its start in each process whose PYTHONPATH has this folder."""

from chaos.inside import hook

hook.install()
