"""The files of the demo's project, as a user would write them; they are copied into the project's folder."""
