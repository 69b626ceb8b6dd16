"""The model that writes questions and answers: one client, an embedded server, a call journal."""
