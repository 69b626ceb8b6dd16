"""The local web app: a reader of run folders that starts the same commands as a terminal, in processes of their own."""
