"""What Alembic runs: the migrations that are missing, over the connection that `launcher.state.migrate` gives it."""

from alembic import context

from launcher.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by making it anew.
    render_as_batch=True,
    # The caller's transaction holds all of them.
    transactional_ddl=False,
)
context.run_migrations()
