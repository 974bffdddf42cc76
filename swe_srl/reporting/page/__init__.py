"""Report and the runs behind it → index.html: one file with plots and a viewer, which needs no network."""
