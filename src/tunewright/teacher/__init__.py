"""The model that writes questions and answers: an HTTP client, an embedded server, a local model, a call journal."""

from tunewright.teacher.identity import teacher_identity
from tunewright.teacher.protocol import Reply, Request
from tunewright.teacher.teacher import Teacher, open_teacher

__all__ = ["Reply", "Request", "Teacher", "open_teacher", "teacher_identity"]
