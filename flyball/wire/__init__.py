"""How others speak to us: translation only. A protocol is a folder; status codes live here and nowhere else."""
