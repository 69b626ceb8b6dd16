"""The model that writes questions and answers: one client, an embedded server, a local model, a call journal."""

from tunewright.teacher.identity import teacher_identity
from tunewright.teacher.open import Teacher, open_teacher
from tunewright.teacher.protocol import Reply, Request

__all__ = ["Reply", "Request", "Teacher", "open_teacher", "teacher_identity"]
